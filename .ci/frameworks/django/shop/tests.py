from django.db import connection
from django.test import TestCase, TransactionTestCase

from .models import Notification, Order


class RollsBack(TestCase):
    def test_insert(self):
        Notification.objects.create(recipient="rolled back", data={})
        self.assertEqual(Notification.objects.count(), 1)


class Commits(TransactionTestCase):
    """Django runs this class after those that roll back. After each test of the class, Django empties the tables of managed models."""

    def test_1(self):
        self.assertEqual(Notification.objects.count(), 0)
        Order.objects.create(number=1)
        Notification.objects.create(recipient="committed", data={})

    def test_2(self):
        self.assertEqual(Order.objects.count(), 0)
        self.assertEqual([n.recipient for n in Notification.objects.all()], ["committed"])
        with connection.cursor() as cursor:
            cursor.execute("SELECT (SELECT count(*) FROM rowcast.migrations) > 0, (SELECT count(*) FROM rowcast.history)")
            self.assertEqual(cursor.fetchone(), (True, 1))
        Notification.objects.all().delete()
