"""Runs, jobs, verifications, and the catalogue of papers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("slug", sa.String(120), nullable=False, index=True),
        sa.Column("experiment", sa.String(120), nullable=False),
        sa.Column("preset", sa.String(40), nullable=False),
        sa.Column("variant", sa.String(120), nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("scalars", sa.JSON, nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("precision", sa.String(20), nullable=False),
        sa.Column("device", sa.String(20), nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("finished", moment, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("peak_mib", sa.Float, nullable=False),
        sa.Column("arrays_bytes", sa.Integer, nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("created", moment, nullable=False),
        sa.Column("updated", moment, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_table(
        "verifications",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("slug", sa.String(120), nullable=False, index=True),
        sa.Column("made", moment, nullable=False),
        sa.Column("entry", sa.JSON, nullable=False),
    )
    op.create_table(
        "papers",
        sa.Column("slug", sa.String(120), primary_key=True),
        sa.Column("arxiv", sa.String(40), nullable=True, unique=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("title_key", sa.String(400), nullable=False, index=True),
    )
    op.create_table(
        "sightings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("slug", sa.String(120), sa.ForeignKey("papers.slug"), nullable=False, index=True),
        sa.Column("source", sa.String(40), nullable=False),
        sa.Column("as_of", sa.String(10), nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.UniqueConstraint("slug", "source"),
    )


def downgrade() -> None:
    for table in ("sightings", "papers", "verifications", "jobs", "runs"):
        op.drop_table(table)
