"""Readers: accounts, letters, votes, comments, collections."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("address", sa.String(254), nullable=True, unique=True),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("key", sa.String(60), nullable=False, unique=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("blocked", sa.Boolean, nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("seen", moment, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "issues",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("value", sa.String(400), nullable=False),
        sa.Column("rhythm", sa.String(10), nullable=False),
        sa.Column("period", sa.String(10), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("html", sa.Text, nullable=False),
        sa.Column("known", sa.JSON, nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.UniqueConstraint("kind", "value", "rhythm", "period"),
    )
    op.create_table(
        "notices",
        sa.Column("slug", sa.String(120), primary_key=True),
        sa.Column("votes", sa.Integer, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("comments", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, index=True),
    )
    op.create_table(
        "rates",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("start", moment, nullable=False, index=True),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )
    op.create_table(
        "suppressed",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("why", sa.String(20), nullable=False),
        sa.Column("made", moment, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("browser", sa.String(64), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("expires", moment, nullable=False, index=True),
        sa.Column("used", moment, nullable=True),
        sa.Column("tries", sa.Integer, nullable=False),
    )
    op.create_table(
        "api_tokens",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False, index=True),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("scopes", sa.String(200), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("seen", moment, nullable=True),
        sa.Column("expires", moment, nullable=False),
    )
    op.create_table(
        "authorships",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("slug", sa.String(120), primary_key=True, index=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("words", sa.String(400), nullable=False),
        sa.Column("made", moment, nullable=False),
    )
    op.create_table(
        "collections",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False, index=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("title", sa.String(120), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.UniqueConstraint("account_id", "name"),
    )
    op.create_table(
        "comments",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("slug", sa.String(120), nullable=False),
        sa.Column("claim", sa.String(40), nullable=False),
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("comments.id"), nullable=True, index=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=True, index=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("run", sa.String(400), nullable=False),
        sa.Column("reproduced", sa.String(10), nullable=False),
        sa.Column("author", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("edited", moment, nullable=True),
    )
    op.create_index("ix_comments_slug_claim", "comments", ["slug", "claim"])
    op.create_table(
        "identities",
        sa.Column("issuer", sa.String(200), primary_key=True),
        sa.Column("subject", sa.String(200), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False, index=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("made", moment, nullable=False),
    )
    op.create_table(
        "passkeys",
        sa.Column("id", sa.String(400), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False, index=True),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("used", moment, nullable=True),
    )
    op.create_table(
        "read_marks",
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("slug", sa.String(120), primary_key=True),
        sa.Column("made", moment, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False, index=True),
        sa.Column("agent", sa.String(200), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("seen", moment, nullable=False),
        sa.Column("expires", moment, nullable=False),
    )
    op.create_table(
        "submissions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=False, index=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("value", sa.String(400), nullable=False),
        sa.Column("note", sa.String(400), nullable=False),
        sa.Column("state", sa.String(10), nullable=False, index=True),
        sa.Column("answer", sa.String(400), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("settled", moment, nullable=True),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("address", sa.String(254), nullable=False, index=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), nullable=True, index=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("value", sa.String(400), nullable=False),
        sa.Column("rhythm", sa.String(10), nullable=False),
        sa.Column("state", sa.String(10), nullable=False, index=True),
        sa.Column("made", moment, nullable=False),
        sa.Column("confirmed", moment, nullable=True),
        sa.Column("returned", sa.Integer, nullable=False),
        sa.Column("returned_last", moment, nullable=True),
        sa.UniqueConstraint("address", "kind", "value"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "votes",
        sa.Column("slug", sa.String(120), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), primary_key=True, index=True),
        sa.Column("made", moment, nullable=False),
    )
    op.create_table(
        "collected",
        sa.Column("collection_id", sa.Integer, sa.ForeignKey("collections.id"), primary_key=True),
        sa.Column("slug", sa.String(120), primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("made", moment, nullable=False),
    )
    op.create_table(
        "complaints",
        sa.Column("comment_id", sa.Integer, sa.ForeignKey("comments.id"), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id"), primary_key=True, index=True),
        sa.Column("reason", sa.String(400), nullable=False),
        sa.Column("made", moment, nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
    )
    op.create_table(
        "letters",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("issue_id", sa.Integer, sa.ForeignKey("issues.id"), nullable=False, index=True),
        sa.Column("subscription_id", sa.Integer, sa.ForeignKey("subscriptions.id"), nullable=False),
        sa.Column("period", sa.String(10), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due", moment, nullable=False),
        sa.Column("changed", moment, nullable=False),
        sa.Column("answer", sa.String(200), nullable=False),
        sa.UniqueConstraint("subscription_id", "period"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_letters_state_due", "letters", ["state", "due"])
    op.create_table(
        "wordings",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("comment_id", sa.Integer, sa.ForeignKey("comments.id"), nullable=False, index=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("made", moment, nullable=False),
    )
    op.bulk_insert(
        sa.table("revisions", sa.column("name", sa.String), sa.column("number", sa.Integer)), [{"name": "readers", "number": 0}]
    )


def downgrade() -> None:
    op.execute("DELETE FROM revisions WHERE name = 'readers'")
    for table in (
        "wordings",
        "letters",
        "complaints",
        "collected",
        "votes",
        "subscriptions",
        "submissions",
        "sessions",
        "read_marks",
        "passkeys",
        "identities",
        "comments",
        "collections",
        "authorships",
        "api_tokens",
        "tokens",
        "suppressed",
        "secrets",
        "rates",
        "notices",
        "issues",
        "accounts",
    ):
        op.drop_table(table)
