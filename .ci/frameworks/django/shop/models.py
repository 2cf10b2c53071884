from django.db import models


class Order(models.Model):
    number = models.IntegerField()


class Notification(models.Model):
    id = models.BigAutoField(primary_key=True)
    recipient = models.TextField()
    event = models.TextField(default="message")
    data = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        managed = False
        db_table = 'rowcast"."notifications'
