#!/usr/bin/env python3
"""Compares what Postgres' own tests printed through Tenantry with what they printed directly.

A difference is fine if `differences.toml` lists it, line by line; anything else fails, and so does a listed difference
that no longer occurs. Writes one diff per test beside the results, and the tables of docs/regression.md on demand.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

# What is called a mode in differences.toml: the runs that belong to it, each with the direct run it is compared with.
MODES = {
    "session": [("session", "direct")],
    "transaction": [("transaction", "direct")],
    "tenants": [("tenants-alpha", "tenants-direct-alpha"), ("tenants-bravo", "tenants-direct-bravo")],
}
TITLES = {"session": "session mode", "transaction": "transaction mode", "tenants": "two tenants"}
WAYS = ["direct", "session", "transaction"]
# The second tenant's copy of the suite has names of its own.
OWN_NAMES = [
    ("regresz_", "regress_"),
    ("regresz-", "regress-"),
    ("regressioz", "regression"),
    ("goo", "foo"),
    ("twophasf_", "twophase_"),
]
SHOWN_LINES = 12


class Run:
    """One run of the whole schedule."""

    def __init__(self, results, name):
        self.name = name
        self.dir = results / name / "results"
        log = results / f"{name}.log"
        self.exists = log.exists()
        text = log.read_text(errors="replace") if self.exists else ""
        pattern = re.compile(r"^(?:test|    )\s+(\S+)\s+\.\.\. (ok|FAILED|failed)", re.M)
        self.verdicts = {test: verdict == "ok" for test, verdict in pattern.findall(text)}
        # pg_regress ends with a count; without it the run was cut off.
        self.is_whole = re.search(r"^ (All )?\d+ (of \d+ )?tests (passed|failed)", text, re.M) is not None
        seconds = results / f"{name}.seconds"
        self.seconds = seconds.read_text().strip() if seconds.exists() else "?"

    def output(self, test):
        path = self.dir / f"{test}.out"
        if not path.exists():
            return None
        text = path.read_text(errors="replace")
        for theirs, common in OWN_NAMES:
            text = text.replace(theirs, common)
        return text


class Entry:
    """One section of differences.toml."""

    def __init__(self, kind, section):
        self.kind = kind
        self.reason = section.pop("reason")
        self.modes = section.pop("modes")
        self.tests = section.pop("tests", None)
        script = section.pop("script", None)
        self.script = re.compile(script, re.M | re.I) if script else None
        self.sometimes = section.pop("sometimes", False)
        self.patterns = [
            (sign, re.compile(pattern))
            for sign, key in (("-", "removed"), ("+", "added"))
            for pattern in section.pop(key, [])
        ]
        self.seen = set()
        unknown = set(self.modes) - set(MODES)
        if section or unknown or (self.tests is None) == (self.script is None):
            sys.exit(f"differences.toml: {self.reason!r}: mistakes near {sorted(section) + sorted(unknown)}")
        if (kind == "expected") != bool(self.patterns):
            sys.exit(f"differences.toml: {self.reason!r}: [[expected]] has lines, [[open]] has none")

    def applies(self, mode, test, scripts):
        if mode not in self.modes:
            return False
        if self.tests is not None:
            return test in self.tests
        script = scripts / f"{test}.sql"
        return script.exists() and self.script.search(script.read_text(errors="replace")) is not None


class Finding:
    """What one test showed in one mode."""

    def __init__(self):
        self.listed = 0
        self.open = 0
        self.unlisted = []
        self.entries = []
        self.reasons = set()

    def cell(self):
        if self.unlisted:
            return f"**differs**, {len(self.unlisted)}"
        if self.open:
            return f"open, {self.open}"
        return f"listed, {self.listed}" if self.listed else "same"


def changed_lines(reference, other):
    """(sign, line) of all lines that differ; and the diff as people read it."""
    # Python's difflib takes minutes where long texts have little in common.
    with tempfile.TemporaryDirectory() as directory:
        paths = [pathlib.Path(directory, name) for name in ("direct", "proxy")]
        for path, text in zip(paths, (reference, other)):
            path.write_text(text, errors="surrogateescape")
        done = subprocess.run(["diff", "-a", "-U3", *paths], capture_output=True, check=False)
    diff = done.stdout.decode(errors="replace").splitlines()[2:]
    return [(line[0], line[1:].rstrip()) for line in diff if line[:1] in ("+", "-")], diff


class Judge:
    """All findings, and what is wrong with them."""

    def __init__(self, results, scripts, entries):
        self.results, self.scripts, self.entries = results, scripts, entries
        self.runs = {}
        self.findings = {}
        self.failures = []

    def run(self, name):
        if name not in self.runs:
            self.runs[name] = Run(self.results, name)
        return self.runs[name]

    def judge_suite(self):
        if self.run("direct").exists:
            for test, passed in self.run("direct").verdicts.items():
                if not passed:
                    self.failures.append(f"direct, {test}: fails without Tenantry")
        for mode, pairs in MODES.items():
            pairs = [(self.run(name), self.run(reference)) for name, reference in pairs]
            if not pairs[0][0].exists:
                continue
            self.findings[mode] = {}
            for run in (run for pair in pairs for run in pair):
                if not run.is_whole:
                    self.failures.append(f"{run.name}: the run did not come to its end, see {run.name}.log")
            for test in pairs[0][1].verdicts:
                self.findings[mode][test] = self.judge_test(mode, test, pairs)
        self.judge_entries()

    def judge_test(self, mode, test, pairs):
        finding = Finding()
        finding.entries = [entry for entry in self.entries if entry.applies(mode, test, self.scripts)]
        for run, reference in pairs:
            if test not in run.verdicts:
                self.failures.append(f"{run.name}, {test}: was not run")
                continue
            before, after = reference.output(test) or "", run.output(test) or ""
            # What pg_regress takes for right may be another of its expected outputs than the direct run had.
            changes, diff = ([], []) if run.verdicts[test] else changed_lines(before, after)
            if diff:
                (self.results / run.name / f"{test}.diff").write_text("\n".join(diff) + "\n")
            self.sort_changes(mode, test, changes, finding)
        if finding.unlisted:
            lines = [f"    {sign}{line}" for sign, line in finding.unlisted[:SHOWN_LINES]]
            if len(finding.unlisted) > SHOWN_LINES:
                lines.append(f"    ... {len(finding.unlisted) - SHOWN_LINES} more, see {pairs[0][0].name}/{test}.diff")
            self.failures.append("\n".join([f"{TITLES[mode]}, {test}: differs, and that is not listed:", *lines]))
        return finding

    def sort_changes(self, mode, test, changes, finding):
        is_open = [entry for entry in finding.entries if entry.kind == "open"]
        for sign, line in changes:
            listed = False
            for entry in finding.entries:
                for number, (pattern_sign, pattern) in enumerate(entry.patterns):
                    if pattern_sign == sign and pattern.fullmatch(line):
                        entry.seen.add((mode, test, number))
                        finding.reasons.add(entry.reason)
                        listed = True
            if listed:
                finding.listed += 1
            elif is_open:
                finding.open += 1
                for entry in is_open:
                    entry.seen.add(mode)
                    finding.reasons.add(entry.reason)
            else:
                finding.unlisted.append((sign, line))

    def judge_entries(self):
        for entry in self.entries:
            for mode in entry.modes:
                if mode not in self.findings or entry.sometimes:
                    continue
                if entry.kind == "open":
                    if mode not in entry.seen:
                        self.failures.append(f"{TITLES[mode]}: is listed as open and no longer occurs: {entry.reason}")
                    continue
                for test in self.findings[mode]:
                    for number, (sign, pattern) in enumerate(entry.patterns):
                        if entry.applies(mode, test, self.scripts) and (mode, test, number) not in entry.seen:
                            self.failures.append(
                                f"{TITLES[mode]}, {test}: is listed and no longer occurs: {sign}{pattern.pattern}"
                            )

    def judge_pipeline(self):
        """Rows of (test, result per way, trace)."""
        directory = self.results / "pipeline"
        rows = []
        for path in sorted((directory / "direct").glob("*.result")):
            test = path.stem
            results = [(directory / way / path.name).read_text().strip() for way in WAYS]
            for way, result in zip(WAYS, results):
                if result != "ok":
                    self.failures.append(f"libpq pipeline, {way}, {test}: {result}, see pipeline/{way}/{test}.out")
            rows.append((test, results, self.judge_trace(directory, test)))
        return rows

    def judge_trace(self, directory, test):
        upstream = directory / "traces" / f"{test}.trace"
        if not upstream.exists():
            return "none upstream"
        for way in WAYS:
            changes, _ = changed_lines(upstream.read_text(), (directory / way / upstream.name).read_text())
            if changes:
                lines = [f"    {sign}{line}" for sign, line in changes[:SHOWN_LINES]]
                self.failures.append("\n".join([f"libpq pipeline, {way}, {test}: another trace:", *lines]))
                return "**differs**"
        return "same"

    # --- the document ----------------------------------------------------------------------------------------------

    def document(self, version, pipeline):
        modes = list(self.findings)
        tests = list(next(iter(self.findings.values())))
        reasons = list(dict.fromkeys(entry.reason for entry in self.entries))
        lines = [f"{version}; {len(tests)} tests.", ""]
        lines += ["| run | same | listed | open | neither | seconds |", "|---|---|---|---|---|---|"]
        direct = self.run("direct")
        passed = sum(direct.verdicts.values())
        lines.append(f"| direct | {passed} of {len(direct.verdicts)} pass | | | | {direct.seconds} |")
        for mode in modes:
            cells = [finding.cell().split(",")[0] for finding in self.findings[mode].values()]
            counts = " | ".join(str(cells.count(kind)) for kind in ("same", "listed", "open", "**differs**"))
            seconds = self.run(MODES[mode][0][0]).seconds
            lines.append(f"| {TITLES[mode]} | {counts} | {seconds} |")
        lines += ["", "Tests that differ anywhere, with the lines that do:", ""]
        lines.append("| test | direct | " + " | ".join(TITLES[mode] for mode in modes) + " | why |")
        lines.append("|---|---|" + "---|" * len(modes) + "---|")
        equal = []
        for test in tests:
            findings = [self.findings[mode][test] for mode in modes]
            cells = [finding.cell() for finding in findings]
            if set(cells) == {"same"}:
                equal.append(test)
                continue
            passes = "passes" if direct.verdicts.get(test) else "**fails**"
            found = set().union(*(finding.reasons for finding in findings))
            numbers = ", ".join(str(number) for number, reason in enumerate(reasons, 1) if reason in found)
            lines.append(f"| {test} | {passes} | {' | '.join(cells)} | {numbers} |")
        lines.append("")
        for number, reason in enumerate(reasons, 1):
            first, *rest = wrapped(f"{number}. {reason}")
            lines += [first, *(f"   {line}" for line in rest)]
        lines.append("")
        lines += wrapped(f"The same everywhere ({len(equal)}): " + ", ".join(equal) + ".")
        lines += ["", "libpq's pipeline tests:", "", "| test | " + " | ".join(WAYS) + " | trace |", "|---|---|---|---|---|"]
        lines += [f"| {test} | {' | '.join(results)} | {trace} |" for test, results, trace in pipeline]
        return "\n".join(lines)


def wrapped(text, width=118):
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) + 1 > width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, line]


def read_entries(path):
    sections = tomllib.loads(path.read_text())
    unknown = set(sections) - {"expected", "open"}
    if unknown:
        sys.exit(f"differences.toml: unknown sections {sorted(unknown)}")
    return [Entry(kind, section) for kind in ("expected", "open") for section in sections.get(kind, [])]


def write_between(path, name, text):
    begin, end = f"<!-- regress:{name} -->", f"<!-- /regress:{name} -->"
    document = path.read_text()
    head, rest = document.split(begin)
    _, tail = rest.split(end)
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--scripts", type=pathlib.Path, required=True)
    parser.add_argument("--differences", type=pathlib.Path, required=True)
    parser.add_argument("--document", type=pathlib.Path)
    parser.add_argument("--version", default="")
    options = parser.parse_args()

    judge = Judge(options.results, options.scripts, read_entries(options.differences))
    judge.judge_suite()
    pipeline = judge.judge_pipeline()
    if options.document:
        write_between(options.document, "tables", judge.document(options.version, pipeline))
    for mode, findings in judge.findings.items():
        cells = [finding.cell().split(",")[0].strip("*") for finding in findings.values()]
        counts = ", ".join(f"{cells.count(kind)} {kind}" for kind in ("same", "listed", "open", "differs"))
        print(f"{TITLES[mode]}: {counts}")
    if pipeline:
        passed = sum(set(results) == {"ok"} for _, results, _ in pipeline)
        print(f"libpq pipeline: {passed} of {len(pipeline)} pass everywhere")
    for failure in judge.failures:
        print(failure)
    if judge.failures:
        sys.exit(f"regress: {len(judge.failures)} things are not as listed")


main()
