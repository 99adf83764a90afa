"""Chainer's generated ``caffe_pb2`` on today's protobuf."""

from __future__ import annotations


def rebuild_caffe_pb2(source: str) -> str:
    """Returns source that makes the same message classes by :func:`build`.

    protobuf 4 and later refuse code that protoc generated before version 3.19
    ("Descriptors cannot be created directly"). The old code holds the description of
    the whole file in serialized form, which is all that is needed.
    """
    import ast

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb":
            descriptor = node.value.args[0].value.encode("latin1")
            return (
                f"from {__name__} import build\n"
                f"DESCRIPTOR = build({descriptor!r}, globals())\n"
            )
    raise ImportError("caffe_pb2 is not the module of Chainer 7.8.1: no serialized_pb")


def build(descriptor: bytes, namespace: dict):
    """Puts the messages and enums of a serialized file into ``namespace``.

    This is what protoc's generated code has done since version 3.20.
    """
    from google.protobuf import descriptor_pool
    from google.protobuf.internal import builder

    file = descriptor_pool.Default().AddSerializedFile(descriptor)
    builder.BuildMessageAndEnumDescriptors(file, namespace)
    builder.BuildTopDescriptorsAndMessages(file, namespace["__name__"], namespace)
    return file
