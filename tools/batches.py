#!/usr/bin/env python3
"""Sources that may be compiled as one, for builds that want to parse headers once and not for each of them.

usage: batches.py SOURCE_DIR OUT_DIR MOST FILE...

Writes OUT_DIR/NUMBER.cc, each with the #include lines of up to MOST of FILEs, and prints the files' names, a line each.
Together are only files in which no name of an unnamed namespace means two things: what each declares there is compared
with what the others declare there, with what they show, and with what the headers show that they include, as far as
that is in a namespace around. What this overlooks ends in the compiler's error.
"""
import pathlib
import re
import sys

TOKEN = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|::|\S")
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
DIRECTIVE = re.compile(r"^\s*#(?:[^\n]*\\\n)*[^\n]*", re.M)
DIRECTIVES, OPENED = "using namespace ", "opened: "
OVERLOADED = {"visit"}  # one for each type that is saved: state/codec.h
TEMPLATE = re.compile(r"\btemplate <[^;{}()]*?>(?=\s+\w)")
NAME = re.compile(r"[A-Za-z_]\w*$")
NO_NAME = set("""auto bool char class const constexpr consteval constinit decltype double enum explicit extern final float
inline int long mutable namespace noexcept operator override public short signed sizeof static static_assert struct
template typename union unsigned using virtual void volatile TEST TEST_F TEST_P INSTANTIATE_TEST_SUITE_P""".split())


def declared(text: str) -> tuple[dict[str, tuple[str, str]], dict[str, set[str]]]:
    """The names of unnamed namespaces, each with the named namespace around it and, where it is an alias, its
    declaration; and the names of named ones, each with its namespaces: "a::b::"."""
    plain = NOISE.sub(lambda found: " " if found[0][0] == "/" else "0", DIRECTIVE.sub("", text))
    tokens = TOKEN.findall(TEMPLATE.sub("", plain))
    hidden, shown = {}, {}
    scopes = []  # of each brace that is open: "a::b::", "unnamed", "enumerators", or "" for what keeps its names
    start = at = depth = 0
    initializer = False

    def name_at(at: int) -> bool:
        token, before, after = tokens[at], tokens[at - 1] if at else ";", tokens[at + 1]
        if initializer or not NAME.match(token) or token in NO_NAME or token.endswith("_t") or len(token) == 1:
            return False
        if scopes[-1:] == ["enumerators"]:
            return before in "{,"
        if before in ("class", "struct", "enum", "union"):
            return True
        if after not in ("(", "=", "{", ";", "[", ",", ":"):
            return False
        return before in (">", "*", "&", ",") or (NAME.match(before) and before not in ("public", "typename"))

    def namespace() -> str:
        return "".join(scope for scope in scopes if scope.endswith("::"))

    while at < len(tokens) - 1:
        token = tokens[at]
        visible = depth == 0 and all(scopes)
        if visible and at == start and (token == "using" or tokens[at : at + 3 : 2] == ["namespace", "="]):
            end = tokens.index(";", at)
            words = " ".join(tokens[at:end])
            if words.startswith((DIRECTIVES, "using enum")):
                hidden[words] = (namespace(), words)
            elif "unnamed" in scopes:
                hidden[tokens[at + 1] if tokens[at + 2] == "=" else tokens[end - 1]] = (namespace(), words)
            at = start = end + 1
            continue
        if visible and name_at(at) and token not in OVERLOADED:
            if "unnamed" in scopes:
                hidden[token] = (namespace(), "")
            else:
                shown.setdefault(token, set()).add(namespace())
        if token in "([":
            depth += 1
        elif token in ")]":
            depth -= 1
        elif token == "=" and visible:
            initializer = True
        elif token == "," and visible:
            initializer = False
        elif token == "{":
            head = tokens[start:at]
            if "namespace" in head:
                scopes.append("unnamed" if head[-1] == "namespace" else "".join(head[head.index("namespace") + 1 :]) + "::")
                start = at + 1
            else:
                plain_enum = head[:1] == ["enum"] and head[1:2] != ["class"]
                scopes.append("enumerators" if plain_enum and not initializer else "")
        elif token == "}":
            closed = scopes.pop()
            if closed == "unnamed" or closed.endswith("::") or (depth == 0 and all(scopes) and not initializer and tokens[at + 1] != ";"):
                start = at + 1
        elif token == ";" and visible:
            start, initializer = at + 1, False
        at += 1
    return hidden, shown


class Headers:
    """What headers declare, with all that they include."""

    def __init__(self, root: pathlib.Path):
        self.root, self.own, self.whole = root, {}, {}

    def reached(self, path: str) -> frozenset[str]:
        if path not in self.whole:
            self.whole[path] = frozenset((path,))  # for a circle
            file = self.root / path
            text = file.read_text() if file.is_file() else ""
            self.own[path] = declared(text)[1]
            paths = INCLUDE.findall(text)
            self.whole[path] = frozenset((path,)).union(*(self.reached(one) for one in paths))
        return self.whole[path]


class Source:
    def __init__(self, path: str, headers: Headers):
        text = pathlib.Path(path).read_text()
        self.path = path
        self.hidden, own = declared(text)
        self.enums = {name for name in self.hidden if name.startswith("using enum")}
        reached = frozenset().union(*(headers.reached(one) for one in INCLUDE.findall(text)))
        self.shown = {}
        for names in (own, *(headers.own[one] for one in reached)):
            for name, namespaces in names.items():
                self.shown.setdefault(name, set()).update(namespaces)
        # What a directive opens is seen as if it were declared around it.
        opened = {name: place for name, (place, _) in self.hidden.items() if name.startswith(DIRECTIVES)}
        for directive, place in opened.items():
            del self.hidden[directive]
            end = "::" + directive.removeprefix(DIRECTIVES).replace(" ", "") + "::"
            for name, namespaces in self.shown.items():
                for namespace in namespaces:
                    if ("::" + namespace).endswith(end):
                        self.hidden.setdefault(name, (place, OPENED + namespace))

    def agrees_with(self, other: "Source") -> bool:
        if self.enums != other.enums:
            return False
        for name in self.hidden.keys() & other.hidden.keys():
            (namespace, alias), (others, others_alias) = self.hidden[name], other.hidden[name]
            within = namespace.startswith(others) or others.startswith(namespace)
            if within and not (alias and namespace == others and alias == others_alias):
                return False
        return not (self.hides_from(other) or other.hides_from(self))

    def hides_from(self, other: "Source") -> bool:
        """Whether a name that the other one sees would mean one of ours, or both."""
        for name, (namespace, alias) in self.hidden.items():
            if not alias or alias.startswith(OPENED):
                if any(namespace.startswith(one) and OPENED + one != alias for one in other.shown.get(name, ())):
                    return True
        return False


def batches(sources: list[Source], most: int) -> list[list[Source]]:
    groups = []
    for source in sources:
        for group in groups:
            if len(group) < most and all(source.agrees_with(other) for other in group):
                group.append(source)
                break
        else:
            groups.append([source])
    return groups


def main() -> int:
    root, out, most = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    headers = Headers(root)
    out.mkdir(parents=True, exist_ok=True)
    for number, group in enumerate(batches([Source(path, headers) for path in sys.argv[4:]], most)):
        file, text = out / f"{number}.cc", "".join(f'#include "{source.path}"\n' for source in group)
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
