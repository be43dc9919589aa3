from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Report(_message.Message):
    __slots__ = ("kind", "payload", "content_type")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    payload: bytes
    content_type: str
    def __init__(self, kind: _Optional[str] = ..., payload: _Optional[bytes] = ..., content_type: _Optional[str] = ...) -> None: ...

class StateGetRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class StateGetResponse(_message.Message):
    __slots__ = ("value", "found")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    found: bool
    def __init__(self, value: _Optional[bytes] = ..., found: _Optional[bool] = ...) -> None: ...

class StatePutRequest(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OnTimerRequest(_message.Message):
    __slots__ = ("interval_ms", "board")
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    BOARD_FIELD_NUMBER: _ClassVar[int]
    interval_ms: int
    board: Board
    def __init__(self, interval_ms: _Optional[int] = ..., board: _Optional[_Union[Board, _Mapping]] = ...) -> None: ...

class OnPressureRequest(_message.Message):
    __slots__ = ("exceeded", "board")
    EXCEEDED_FIELD_NUMBER: _ClassVar[int]
    BOARD_FIELD_NUMBER: _ClassVar[int]
    exceeded: _containers.RepeatedCompositeFieldContainer[Exceeded]
    board: Board
    def __init__(self, exceeded: _Optional[_Iterable[_Union[Exceeded, _Mapping]]] = ..., board: _Optional[_Union[Board, _Mapping]] = ...) -> None: ...

class Exceeded(_message.Message):
    __slots__ = ("reading", "value", "threshold")
    READING_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    reading: str
    value: int
    threshold: int
    def __init__(self, reading: _Optional[str] = ..., value: _Optional[int] = ..., threshold: _Optional[int] = ...) -> None: ...

class Board(_message.Message):
    __slots__ = ("memory", "cpu", "io", "temperature", "throttled", "disk")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    IO_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    memory: Pressure
    cpu: Pressure
    io: Pressure
    temperature: int
    throttled: int
    disk: Disk
    def __init__(self, memory: _Optional[_Union[Pressure, _Mapping]] = ..., cpu: _Optional[_Union[Pressure, _Mapping]] = ..., io: _Optional[_Union[Pressure, _Mapping]] = ..., temperature: _Optional[int] = ..., throttled: _Optional[int] = ..., disk: _Optional[_Union[Disk, _Mapping]] = ...) -> None: ...

class Pressure(_message.Message):
    __slots__ = ("some_10", "some_60", "some_300", "full_10", "full_60", "full_300")
    SOME_10_FIELD_NUMBER: _ClassVar[int]
    SOME_60_FIELD_NUMBER: _ClassVar[int]
    SOME_300_FIELD_NUMBER: _ClassVar[int]
    FULL_10_FIELD_NUMBER: _ClassVar[int]
    FULL_60_FIELD_NUMBER: _ClassVar[int]
    FULL_300_FIELD_NUMBER: _ClassVar[int]
    some_10: int
    some_60: int
    some_300: int
    full_10: int
    full_60: int
    full_300: int
    def __init__(self, some_10: _Optional[int] = ..., some_60: _Optional[int] = ..., some_300: _Optional[int] = ..., full_10: _Optional[int] = ..., full_60: _Optional[int] = ..., full_300: _Optional[int] = ...) -> None: ...

class Disk(_message.Message):
    __slots__ = ("free_bytes", "total_bytes")
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    free_bytes: int
    total_bytes: int
    def __init__(self, free_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...
