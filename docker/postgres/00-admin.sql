-- The login with which Tenantry reads the server's limits (max_connections = "auto"). It may log in, and nothing else.
-- The password is the sample in docker/secrets/tenantry_admin_password.
CREATE ROLE tenantry_admin LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT CONNECTION LIMIT 4;
ALTER ROLE tenantry_admin PASSWORD 'SCRAM-SHA-256$4096:CGyqz7zCF6PNU/YPSsSovQ==$QO7t+PME/0PABRulqLrkaIc8zfwq3KnMVkCA2+NHHKU=:QWJ9Mjso70701C0tG5vyB5WE0vrGO3tQNM6mHkQWKNM=';
GRANT CONNECT ON DATABASE app TO tenantry_admin;
