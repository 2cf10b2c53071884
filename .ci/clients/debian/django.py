"""The program inserts notifications with Django. The test puts code of sql/README.md in place of the comment README."""

import os

import django
from django.apps import AppConfig
from django.conf import settings
from django.db import transaction

from check import check


class App(AppConfig):
    name = __name__


settings.configure(
    INSTALLED_APPS=[__name__ + ".App"],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
        }
    },
)
django.setup()

# README


class Client:
    transaction = savepoint = staticmethod(transaction.atomic)

    def insert(self, recipient, data):
        Notification.objects.create(recipient=recipient, data=data)

    def insert_many(self, recipient, data):
        Notification.objects.bulk_create([Notification(recipient=recipient, data=d) for d in data])

    def insert_with_key(self, recipient, data):
        return Notification.objects.create(recipient=recipient, data=data).pk

    def find(self, recipient):
        return [(n.event, n.data) for n in Notification.objects.filter(recipient=recipient).order_by("id")]


check(Client())
