"""A client of CNIAction that knows nothing but the protos: run in the namespace of the daemon, as the host's plugin would be on
the other end of the management wire. Reads calls from standard input, one JSON object a line: {"method": "cmdAdd", "request":
{...}}; writes {"code": "OK", "text": "", "answer": {...}, "seconds": 0.001} for each."""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time

import grpc
from google.protobuf import json_format


def generate(protos, place):
    """The messages of the published protos, as protoc makes them for Python."""
    subprocess.run(["protoc", f"-I{protos}", f"--python_out={place}", "cniOffloadAgent.proto",
                    "cniOffloadDefinitions.proto"], check=True)
    sys.path.insert(0, str(place))
    return importlib.import_module("cniOffloadAgent_pb2")


class Action:
    """The methods of the service by name, as generated stubs have them; with the path that the wire has."""

    def __init__(self, channel, module):
        self.module = module
        for name in ("Add", "Del", "Check"):
            request, answer = (getattr(module, f"CNI{name}{kind}") for kind in ("Request", "Response"))
            setattr(self, f"cmd{name}", channel.unary_unary(f"/CNIAction/cmd{name}",
                                                            request_serializer=request.SerializeToString,
                                                            response_deserializer=answer.FromString))

    def call(self, method, request, timeout=60):
        """The answer, and how long it took."""
        message = json_format.ParseDict(request, getattr(self.module, f"CNI{method.removeprefix('cmd')}Request")())
        begin = time.monotonic()
        answer = getattr(self, method)(message, timeout=timeout)
        return answer, time.monotonic() - begin


def connect(arguments):
    if not arguments.ca:
        return grpc.insecure_channel(arguments.address)
    read = lambda path: open(path, "rb").read() if path else None  # noqa: E731
    credentials = grpc.ssl_channel_credentials(read(arguments.ca), read(arguments.key), read(arguments.certificate))
    return grpc.secure_channel(arguments.address, credentials)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("protos")
    parser.add_argument("address")
    parser.add_argument("--ca")
    parser.add_argument("--key")
    parser.add_argument("--certificate")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, connect(arguments) as channel:
        action = Action(channel, generate(arguments.protos, place))
        for line in sys.stdin:
            call = json.loads(line)
            try:
                answer, seconds = action.call(call["method"], call["request"])
                said = {"code": "OK", "text": "", "seconds": seconds, "answer": json_format.MessageToDict(
                    answer, preserving_proto_field_name=True)}
                said["has"] = [field.name for field, _ in answer.ListFields()]
            except grpc.RpcError as error:
                said = {"code": error.code().name, "text": error.details()}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
