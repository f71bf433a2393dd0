"""SQLAlchemy, over psycopg 3, does what applications do; exit code 0 if all of it goes as with Postgres itself."""

import concurrent.futures

import checks
import sqlalchemy as sa
from checks import TENANT, URL, same
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ADDRESS = URL.replace("postgres://", "postgresql+psycopg://")
engine = sa.create_engine(ADDRESS, pool_size=4, max_overflow=4, pool_pre_ping=True)


class Adaptor:
    """Sessions of their own, without the engine's pool."""

    engine = sa.create_engine(ADDRESS, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")

    def connect(self):
        return self.engine.connect()

    def close(self, connection):
        connection.close()

    def run(self, connection, sql):
        connection.exec_driver_sql(sql)

    def one(self, connection, sql):
        return connection.exec_driver_sql(sql).scalar()

    def code(self, error):
        return getattr(getattr(error, "orig", None), "sqlstate", None)


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes_sqlalchemy"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    numbers: Mapped[list[int]] = mapped_column(sa.ARRAY(sa.Integer))
    data: Mapped[dict] = mapped_column(sa.JSON)
    blob: Mapped[bytes]


def objects():
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Note(text=f"note {n}", numbers=[n, n + 1], data={"n": n}, blob=bytes([n])) for n in range(100))
        session.commit()
        same(session.scalar(sa.select(sa.func.count()).select_from(Note)), 100)
        note = session.scalars(sa.select(Note).where(Note.text == "note 7")).one()
        same((note.numbers, note.data, note.blob), ([7, 8], {"n": 7}, b"\x07"))
        note.text = "changed"
        session.commit()
        same(session.get(Note, note.id).text, "changed")
        session.delete(note)
        session.rollback()
        same(session.get(Note, note.id).text, "changed")


def nested_transactions():
    with Session(engine) as session, session.begin():
        try:
            with session.begin_nested():
                session.execute(sa.text("SELECT * FROM no_such_table"))
        except sa.exc.ProgrammingError:
            pass
        same(session.scalar(sa.text("SELECT 'alive'")), "alive")


def prepared_statements():
    """psycopg prepares a statement when it sees it the sixth time; the pool hands the session to others between."""
    for number in range(20):
        with engine.connect() as connection:
            same(connection.scalar(sa.text("SELECT id + :n FROM things WHERE id = 1"), {"n": number}), number + 1)


def reflection():
    table = sa.Table("things", sa.MetaData(), autoload_with=engine)
    same([column.name for column in table.columns], ["id", "owner", "body"])
    same([column.name for column in table.primary_key], ["id"])


def isolation_levels():
    for level in ("SERIALIZABLE", "REPEATABLE READ"):
        with engine.connect().execution_options(isolation_level=level) as connection:
            same(connection.scalar(sa.text("SHOW transaction_isolation")), level.lower())
    with engine.connect() as connection:
        same(connection.scalar(sa.text("SHOW transaction_isolation")), "read committed")


def cursors():
    with engine.connect() as connection:
        rows = connection.execution_options(yield_per=100).execute(sa.text("SELECT n FROM generate_series(1, 1000) n"))
        same(sum(row.n for row in rows), 500500)


def many_at_once():
    def work(number):
        for _ in range(10):
            with Session(engine) as session, session.begin():
                same(session.scalar(sa.text("SELECT string_agg(DISTINCT owner, ',') FROM things")), TENANT)
                same(session.scalar(sa.text("SELECT CAST(:n AS int)"), {"n": number}), number)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


checks.main("SQLAlchemy", sa.__version__, [
    objects, nested_transactions, prepared_statements, reflection, isolation_levels, cursors, many_at_once,
    *checks.Portable(Adaptor()).all(),
])
