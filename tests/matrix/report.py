"""Judges what the scripts said, and writes the tables of docs/compatibility.md between their markers."""

GREEN, RED, OWN = "✓", "✗", "–"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def mend(text):
    """An error's text as part of a table or a list."""
    return " ".join(text.replace("|", "\\|").split())[:200]


class Cell:
    """One driver on one Postgres: what failed directly, what failed through Tenantry."""

    def __init__(self, driver, major, direct, through):
        self.driver, self.major = driver, major
        self.version = next((outcome.version for outcome in [*direct, *through] if outcome.version), "?")
        self.direct, self.through = self.merge(direct), self.merge(through)
        self.checks = list(dict.fromkeys(check for outcome in direct for check in [*outcome.ok, *outcome.failed]))
        if not self.checks:
            self.direct.setdefault("the script", "ran no checks")
        # A script that dies in the middle must not pass for one that has fewer checks.
        for outcome in through:
            for check in self.checks:
                if check not in outcome.ok and check not in outcome.failed:
                    self.through.setdefault(check, "did not run")

    @staticmethod
    def merge(outcomes):
        failed = {}
        for outcome in outcomes:
            for check, why in outcome.failed.items():
                failed.setdefault(check, why)
        return failed

    def is_green(self):
        return not self.direct and not self.through

    def troubles(self):
        """Check, where it fails, why."""
        for check, why in self.direct.items():
            yield check, "directly too" if check in self.through else "only directly", why
        for check, why in self.through.items():
            if check not in self.direct:
                yield check, "only through Tenantry", why


class Report:
    """The tables, and what in them nobody has explained."""

    def __init__(self, drivers, majors, versions, cells, known):
        self.drivers, self.majors, self.versions, self.cells = drivers, majors, versions, cells
        self.problems, self.problem_cells, self.notes, self.marks = [], set(), {}, {}
        used = set()
        for (driver, major), cell in cells.items():
            for check, where, why in cell.troubles():
                number = next((number for number, each in enumerate(known) if self.explains(each, cell, check, where)), None)
                title = f"**{check.replace('_', ' ')}** fails {where}"
                if number is None:
                    self.problems.append(f"{driver} on {major}: {check} fails {where}: {why}")
                    self.problem_cells.add((driver, major))
                    self.mark(driver, major, title, f"{title}, not explained yet; {driver}: {mend(why)}")
                else:
                    used.add(number)
                    self.mark(driver, major, f"known {number}", f"{title}: {known[number]['why']}")
        for number, each in enumerate(known):
            ran = [key for key in cells if key[0] in each["drivers"] and key[1] in each.get("postgres", majors)]
            if ran and number not in used:
                drivers = ", ".join(each["drivers"])
                self.problems.append(f"exceptions.toml: {drivers}: {each['check']} does not fail any more")

    @staticmethod
    def explains(each, cell, check, where):
        return (cell.driver in each["drivers"] and each["check"] == check and each["where"] == where
                and cell.major in each.get("postgres", [cell.major]))

    def mark(self, driver, major, key, text):
        """What fails in the same way has one note."""
        self.notes.setdefault(key, text)
        self.marks.setdefault((driver, major), []).append(list(self.notes).index(key) + 1)

    def sign(self, driver, major):
        cell = self.cells.get((driver, major))
        if cell is None:
            return ""
        if cell.is_green():
            return GREEN
        only_its_own = all(where == "directly too" for _, where, _ in cell.troubles())
        return f"{OWN if only_its_own else RED} {' '.join(f'[{number}]' for number in sorted(self.marks[driver, major]))}"

    def text(self):
        lines = ["| driver | version | " + " | ".join(f"PostgreSQL {self.versions[major]}" for major in self.majors) + " |"]
        lines.append("|---|---|" + "---|" * len(self.majors))
        for driver in self.drivers:
            version = next((cell.version for (name, _), cell in self.cells.items() if name == driver), "")
            row = " | ".join(self.sign(driver, major) for major in self.majors)
            lines.append(f"| {driver} | {version} | {row} |")
        if self.notes:
            lines += ["", *(f"{number}. {text}" for number, text in enumerate(self.notes.values(), 1))]
        return "\n".join([*lines, "", *self.checks()])

    def checks(self):
        """Which drivers' scripts have which checks."""
        has = {}
        for (driver, _), cell in self.cells.items():
            for check in cell.checks:
                if check != "the script":
                    has.setdefault(check, set()).add(driver)
        yield "| check | in the script of |"
        yield "|---|---|"
        for name in sorted(has, key=lambda name: (-len(has[name]), name)):
            mine = [driver for driver in self.drivers if driver in has[name]]
            others = [driver for driver in self.drivers if driver not in has[name]]
            text = ", ".join(mine)
            if not others:
                text = "all"
            elif len(others) < 6 and len(mine) > len(others):
                text = f"all but {', '.join(others)}"
            yield f"| {name.replace('_', ' ')} | {text} |"

    def write(self, path):
        text = path.read_text()
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        path.write_text(f"{head}{BEGIN}\n{self.text()}\n{END}{tail}")

    def as_data(self):
        return [{"driver": driver, "postgres": major, "version": cell.version, "direct": cell.direct,
                 "tenantry": cell.through, "checks": cell.checks} for (driver, major), cell in self.cells.items()]
