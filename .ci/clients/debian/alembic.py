"""The program prints whether Alembic would drop tables in a database whose app has none, and what it would change with
include_object.

The test puts code of sql/README.md in place of the comment README.
"""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine

# README

engine = create_engine("postgresql+psycopg2://")


def changes(**options):
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_schemas": True, **options})
        return compare_metadata(context, MetaData())


print("drops:", "remove_table" in [change[0] for change in changes()])
print("with include_object:", changes(include_object=include_object))
