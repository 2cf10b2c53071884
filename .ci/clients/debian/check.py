"""Does what apps do with one of the database clients of Python."""

import os


def check(client):
    """Ends the program with an error if something is not as an app expects it.

    The caller has run the code of sql/README.md before. The Go test examines the rows afterwards. A role with the rights of a
    sender cannot read rows.
    """
    client.insert("*", {"to": "everyone"})
    client.insert_many("many", [{"n": 1}, {"n": 2}, {"n": 3}])
    print("key", client.insert_with_key("key", [1, "two", None]))
    rollback(client)
    savepoint(client)
    if os.environ["ROLE"] == "app":
        want(client.find("alice"), [("notify", {"msg": "hi"})])
        want(client.find("many"), [("message", {"n": 1}), ("message", {"n": 2}), ("message", {"n": 3})])
        want(client.find("key"), [("message", [1, "two", None])])
        want(client.find("rolled back"), [])


def rollback(client):
    """A transaction that fails inserts nothing, and the app sees the error that made it fail."""
    own = KeyError("an error of the app")
    try:
        with client.transaction():
            client.insert("rolled back", {})
            raise own
    except Exception as error:
        want(error, own)
    with refused():
        with client.transaction():
            client.insert("rolled back", {})
            client.insert("", {})


def savepoint(client):
    """An error in a savepoint undoes the work since the savepoint, and the transaction can continue."""
    with client.transaction():
        client.insert("kept", {"n": 1})
        with refused():
            with client.savepoint():
                client.insert("undone", {})
                client.insert("", {})
        with client.savepoint():
            client.insert("kept", {"n": 2})
        client.insert("kept", {"n": 3})


class refused:
    """Expects that PostgreSQL refuses an empty recipient."""

    def __enter__(self):
        pass

    def __exit__(self, kind, error, trace):
        if "recipient_is_1_to_256_bytes" not in str(error):
            raise AssertionError(f"an empty recipient: got {error!r}, want the constraint recipient_is_1_to_256_bytes")
        return True


def want(got, expected):
    if got != expected:
        raise AssertionError(f"got {got!r}, want {expected!r}")
