"""An app whose sessions end 10 s after the last request that does not renew a stream.

Its arguments are an address, a port and a directory for the database.

The test puts code of cmd/rowcast/README.md in place of the comment README.
"""

import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

import django
from django.conf import settings

host, port, directory = sys.argv[1:]
settings.configure(
    SECRET_KEY="a key for a test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory + "/db", "OPTIONS": {"timeout": 20}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    SESSION_SAVE_EVERY_REQUEST=True,
    SESSION_COOKIE_AGE=10,
)
django.setup()

from django.contrib.auth import get_user_model, login as sign_in
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.urls import path

# README


def login(request):
    sign_in(request, get_user_model().objects.get(pk=42))
    return HttpResponse(status=204)


def page(request):
    return HttpResponse("signed in" if request.user.is_authenticated else "signed out")


urlpatterns = [path("", page), path("login", login), path("rowcast/auth", rowcast_auth)]

call_command("migrate", verbosity=0)
get_user_model().objects.create_user(pk=42, username="alice")


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


make_server(host, int(port), get_wsgi_application(), Server).serve_forever()
