"""Django's ORM, over psycopg 3, does what applications do; exit code 0 if all of it goes as with Postgres itself."""

import os
import threading

import checks
import django
from checks import TENANT, same
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.postgres"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True,
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "PASSWORD": os.environ["PGPASSWORD"], "CONN_MAX_AGE": 60,
        "OPTIONS": {"server_side_binding": True},
    }})
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402, once it is set up
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, connections, models, transaction  # noqa: E402
from django.db.utils import IntegrityError, ProgrammingError  # noqa: E402


class Note(models.Model):
    text = models.TextField(unique=True)
    numbers = ArrayField(models.IntegerField())
    data = models.JSONField()
    blob = models.BinaryField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "matrix"


class Adaptor:
    """Sessions of their own, as Django opens them."""

    def connect(self):
        session = connections.create_connection("default")
        session.connect()
        return session

    def close(self, session):
        session.close()

    def run(self, session, sql):
        with session.cursor() as cursor:
            cursor.execute(sql)

    def one(self, session, sql):
        with session.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def code(self, error):
        return getattr(error.__cause__, "sqlstate", None)


def migrations():
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT string_agg(format('DROP TABLE %I CASCADE', tablename), ';') FROM pg_tables "
                       f"WHERE schemaname = 'schema_{TENANT}' AND tablename ~ '^(auth|django)_'")
        drop = cursor.fetchone()[0]
        if drop:
            cursor.execute(drop)
    call_command("migrate", verbosity=0)
    user = User.objects.create_user("somebody", password=None)
    user.groups.add(Group.objects.create(name="people"))
    same(Group.objects.get(user__username="somebody").name, "people")


def objects():
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS matrix_note")
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    Note.objects.bulk_create(Note(text=f"note {n}", numbers=[n], data={"n": n}, blob=bytes([n])) for n in range(100))
    same(Note.objects.filter(numbers__contains=[7]).get().data, {"n": 7})
    same(Note.objects.aggregate(models.Max("id"))["id__max"] is not None, True)
    note = Note.objects.get(text="note 8")
    note.text = "changed"
    note.save()
    same(bytes(Note.objects.get(text="changed").blob), b"\x08")
    same(Note.objects.update_or_create(text="changed", defaults={"numbers": [1]})[1], False)


def nested_transactions():
    with transaction.atomic():
        try:
            with transaction.atomic():
                Note.objects.create(text="note 1", numbers=[], data={}, blob=b"")
        except IntegrityError:
            pass
        same(Note.objects.filter(text="note 1").count(), 1)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")
    except ProgrammingError:
        pass
    with transaction.atomic():
        same(Note.objects.select_for_update().filter(text="note 2").count(), 1)


def cursors():
    # Outside a transaction Django declares them WITH HOLD.
    same(sum(1 for _ in Note.objects.iterator(chunk_size=10)), 100)
    with transaction.atomic():
        same(sum(1 for _ in Note.objects.iterator(chunk_size=10)), 100)


def introspection():
    with connection.cursor() as cursor:
        assert "things" in connection.introspection.table_names(cursor)
        same(connection.introspection.get_primary_key_column(cursor, "things"), "id")


def many_at_once():
    troubles = []

    def work(number):
        try:
            for _ in range(10):
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("SELECT string_agg(DISTINCT owner, ','), %s::int FROM things", [number])
                    same(cursor.fetchone(), (TENANT, number))
        except Exception as error:
            troubles.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(troubles, [])


checks.main("Django", django.__version__, [
    migrations, objects, nested_transactions, cursors, introspection, many_at_once, *checks.Portable(Adaptor()).all(),
])
