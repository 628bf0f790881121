"""Queue and events of jobs, revisions, first sightings, embeddings."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("priority", sa.Float, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("owner", sa.String(120), nullable=False, server_default=""))
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("jobs.id"), nullable=False, index=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("sightings") as sightings:
        sightings.add_column(sa.Column("first", sa.String(10), nullable=False, server_default=""))
        sightings.add_column(sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
        sightings.create_index("ix_sightings_revision", ["revision"])
    op.execute("UPDATE sightings SET first = as_of")
    op.create_table(
        "vectors",
        sa.Column("slug", sa.String(120), sa.ForeignKey("papers.slug"), primary_key=True),
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
    )
    op.bulk_insert(revisions, [{"name": name, "number": 0} for name in ("papers", "runs", "vectors")])


def downgrade() -> None:
    op.drop_table("revisions")
    op.drop_table("vectors")
    with op.batch_alter_table("sightings") as sightings:
        sightings.drop_index("ix_sightings_revision")
        sightings.drop_column("revision")
        sightings.drop_column("first")
    op.drop_table("events")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("owner")
        jobs.drop_column("priority")
