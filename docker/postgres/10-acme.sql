-- Tenant acme in database app: role, schema, grants, settings. Nothing is granted to PUBLIC.
-- Run it in that database as a superuser, or as a role that has CREATEROLE and owns the database:
--     psql -v ON_ERROR_STOP=1 -d <database> -f <this file>
-- It can be run again at any time.
BEGIN;

DO $tenantry$
BEGIN
  IF pg_catalog.current_database() <> 'app' THEN
    RAISE EXCEPTION 'this is database %, the tenant lives in %', pg_catalog.current_database(), 'app';
  END IF;
END
$tenantry$;

DO $tenantry$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tenant_acme') THEN
    CREATE ROLE "tenant_acme" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tenant_acme'
      AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)) THEN
    RAISE EXCEPTION 'role % exists and has rights that no tenant may have', 'tenant_acme';
  END IF;
END
$tenantry$;

-- The limit is the tenant's ceiling: the proxy never asks for more, and nobody else gets more.
ALTER ROLE "tenant_acme" WITH LOGIN NOINHERIT CONNECTION LIMIT 100;
ALTER ROLE "tenant_acme" PASSWORD 'SCRAM-SHA-256$4096:z4/BIznqLnBAxAKZ35nNVw==$cE2DdG3UbLAKn9Jkd5SyHPMPB4VvpjyUrXgYNLKs4ao=:FsTxATXaeiApeZIRe0ENeB7oMSctMokfTTqNjUPxm/A=';

-- Everybody may connect to a new database, make temporary tables in it, and use its schema public. Not here.
-- (Roles that relied on it, such as monitoring, need a GRANT CONNECT of their own.)
REVOKE ALL ON DATABASE "app" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE "app" TO "tenant_acme";
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- The schema is the operator's, so that the tenant cannot let anybody in; what it makes there is its own.
CREATE SCHEMA IF NOT EXISTS "tenant_acme";
REVOKE ALL ON SCHEMA "tenant_acme" FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA "tenant_acme" TO "tenant_acme";

-- What the operator makes in the schema later (migrations), the tenant may use.
ALTER DEFAULT PRIVILEGES IN SCHEMA "tenant_acme" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "tenant_acme";
ALTER DEFAULT PRIVILEGES IN SCHEMA "tenant_acme" GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO "tenant_acme";
ALTER DEFAULT PRIVILEGES IN SCHEMA "tenant_acme" GRANT EXECUTE ON FUNCTIONS TO "tenant_acme";
ALTER DEFAULT PRIVILEGES IN SCHEMA "tenant_acme" GRANT USAGE ON TYPES TO "tenant_acme";
-- What the tenant makes is not for PUBLIC: Postgres would give it functions and types. To speak for the
-- tenant's role, one has to be a member of it for a moment, unless one is a superuser.
DO $tenantry$
DECLARE
  joins boolean := NOT pg_catalog.pg_has_role(current_user, 'tenant_acme', 'USAGE');
BEGIN
  IF joins THEN
    EXECUTE pg_catalog.format('GRANT %I TO %I', 'tenant_acme', current_user);
  END IF;
  ALTER DEFAULT PRIVILEGES FOR ROLE "tenant_acme" REVOKE ALL ON FUNCTIONS FROM PUBLIC;
  ALTER DEFAULT PRIVILEGES FOR ROLE "tenant_acme" REVOKE ALL ON TYPES FROM PUBLIC;
  IF joins THEN
    EXECUTE pg_catalog.format('REVOKE %I FROM %I', 'tenant_acme', current_user);
  END IF;
END
$tenantry$;

-- For logins that do not come through the proxy; it sends the same with each login of its own.
ALTER ROLE "tenant_acme" IN DATABASE "app" RESET ALL;
ALTER ROLE "tenant_acme" IN DATABASE "app" SET search_path = "tenant_acme";

COMMIT;
