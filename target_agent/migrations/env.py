"""Runs the migrations on the connection that carnet.database hands over."""

from alembic import context

from target_agent.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
