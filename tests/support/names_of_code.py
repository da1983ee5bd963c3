"""The names that the code defines, found in its sources, for the tests of what texts say of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

#: A name that may be one of the code's: dotted, with a capital letter, or called.
_NAME = re.compile(r"(?P<owner>(?:\w+\.)*)(?P<name>\w+)(?P<call>\(\))?")


class Names:
    """What is defined in these files.

    Attributes
    ----------
    defined
        The names of all classes, functions, methods and constants.
    texts
        All texts that are one word: messages, names that are exported, environment variables.
    classes
        The attributes of each class, those of its bases in the code among them. Classes of one name count as one.
    modules
        What each module has at its top, by its path without the suffix, and with dots.
    inside
        What each module defines, the methods of its classes among it.
    """

    def __init__(self, root: Path, paths: Iterable[Path]) -> None:
        self.defined: set[str] = set()
        self.texts: set[str] = set()
        self.classes: dict[str, set[str]] = {}
        self.modules: dict[str, set[str]] = {}
        self.inside: dict[str, set[str]] = {}
        bases: dict[str, set[str]] = {}
        for path in paths:
            tree = ast.parse(path.read_text())
            module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            texts, inside = _words(tree), _names(tree.body)
            self.modules[module] = inside | texts
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self.classes.setdefault(node.name, set()).update(_attributes(node))
                    bases.setdefault(node.name, set()).update(ast.unparse(base).split("[")[0] for base in node.bases)
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    inside.add(node.name)
            self.defined |= inside
            self.texts |= texts
            self.inside[module] = inside | texts
        for _ in self.classes:  # as often as a class may have bases above it
            before = sum(map(len, self.classes.values()))
            for name, above in bases.items():
                for base in above:
                    self.classes[name] |= self.classes.get(base.rpartition(".")[2], set())
            if sum(map(len, self.classes.values())) == before:
                break

    def knows(self, word: str) -> bool:
        """Whether a word of a text is one of the names, as far as it looks like one."""
        match = _NAME.fullmatch(word)
        if match is None or match["name"].isdigit():
            return True
        owner, name = match["owner"].rstrip("."), match["name"]
        if owner:
            return self._has(owner, name)
        if match["call"] or name in self.defined:
            return name in self.defined
        return name in self.texts or not name.lstrip("_")[:1].isupper()

    def _has(self, owner: str, name: str) -> bool:
        last = owner.rpartition(".")[2]
        if last in self.classes:
            return name in self.classes[last]
        instance = last.title().replace("_", "")  # an object that is called like its class
        if name in self.classes.get(instance, ()):
            return True
        whole, owner = f".{owner}.{name}".replace(".holdfast.", "."), f".{owner}".replace(".holdfast.", ".")
        for module, names in self.modules.items():
            if f".{module}".endswith(whole) or (name in names and f".{module}".endswith(owner)):
                return True
        return False

    def is_owner(self, name: str) -> bool:
        """Whether it is the name of a class or a module."""
        return name in self.classes or any(f".{module}".endswith(f".{name}") for module in self.modules)

    def has_in(self, path: str, word: str) -> bool:
        """Whether a file, named by the end of its path, defines a name or an attribute of a class."""
        owner, _, name = word.rpartition(".")
        end = "." + path.removesuffix(".py").replace("/", ".")
        for module, names in self.inside.items():
            if f".{module}".endswith(end) and (owner or name) in names and (not owner or self._has(owner, name)):
                return True
        return False


def _names(body: Iterable[ast.stmt]) -> set[str]:
    """What statements of a module or a class define."""
    found = set()
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign():
                found |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.Import() | ast.ImportFrom():
                found |= {each.asname or each.name for each in node.names}
            case ast.If() | ast.Try():
                found |= _names(node.body)
    return found


def _attributes(node: ast.ClassDef) -> set[str]:
    """What a class has: what its body defines, its slots, and what its methods assign to themselves."""
    found = _names(node.body)
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and isinstance(each.value, ast.Name):
            found |= {each.attr} if each.value.id == "self" else set()
        elif isinstance(each, ast.Assign) and any(ast.unparse(target) == "__slots__" for target in each.targets):
            found |= _words(each)
    return found


def _words(tree: ast.AST) -> set[str]:
    """The texts that are one word."""
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [value.decode("latin-1") if isinstance(value, bytes) else value for value in constants]
    return {text for text in texts if isinstance(text, str) and text.isidentifier()}
