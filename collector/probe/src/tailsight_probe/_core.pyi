"""The compiled writer (optional): the surface of `pure`, and XXH64."""

from collections.abc import Callable
from typing import Any, ClassVar

def xxh64(data: bytes, /) -> int: ...

class Ring:
    def __init__(self, slots: memoryview, /) -> None: ...
    def put(self, *fields: Any) -> None: ...
    def written(self) -> int: ...

class Point:
    name: str
    space: str
    code: int
    space_code: int
    prefix: bytes
    def __init__(self, name: str, space: str, code: int, space_code: int, prefix: bytes, /) -> None: ...

class Writer:
    implementation: ClassVar[str]
    make_ring: ClassVar[type[Ring]]
    make_point: ClassVar[type[Point]]
    def __init__(
        self, slow_stamp: Callable[..., None], slow_link: Callable[..., None], spaces: dict[str, int], /
    ) -> None: ...
    def stamp(
        self,
        point: Any,
        key: Any,
        depth: Any = None,
        outcome: Any = None,
        mode: Any = None,
        cache: Any = None,
        data_age_ns: Any = None,
        labels: Any = None,
    ) -> None: ...
    def link(self, parent: Any, child: Any, parent_space: Any = "order", child_space: Any = "order") -> None: ...
    def bind(self, ring: Ring, /) -> None: ...
    def forget(self) -> None: ...
    def switch(self, on: bool, /) -> None: ...
