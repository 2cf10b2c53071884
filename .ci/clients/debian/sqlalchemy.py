"""The program inserts notifications with SQLAlchemy. The test puts code of sql/README.md in place of the comment README."""

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, declarative_base

from check import check

Base = declarative_base()
engine = create_engine("postgresql+psycopg2://", future=True)
session = Session(engine, future=True)

# README


def write(*rows):
    """Inserts rows, in the open transaction or, without one, in a new transaction."""
    if session.in_transaction():
        session.add_all(rows)
        session.flush()
    else:
        with session.begin():
            session.add_all(rows)


class Client:
    transaction = staticmethod(session.begin)
    savepoint = staticmethod(session.begin_nested)

    def insert(self, recipient, data):
        write(Notification(recipient=recipient, data=data))

    def insert_many(self, recipient, data):
        write(*[Notification(recipient=recipient, data=d) for d in data])

    def insert_with_key(self, recipient, data):
        with session.begin():
            row = Notification(recipient=recipient, data=data)
            session.add(row)
            session.flush()
            return row.id

    def find(self, recipient):
        query = select(Notification).where(Notification.recipient == recipient).order_by(Notification.id)
        return [(n.event, n.data) for n in session.scalars(query)]


check(Client())
