"""The program runs the SQL file that is its argument as a migration of Alembic does."""

import sys
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine

with create_engine("postgresql+psycopg2://").begin() as connection:
    Operations(MigrationContext.configure(connection)).execute(Path(sys.argv[1]).read_text())
