"""A client that knows nothing but the protos: generates messages with protoc, takes the methods from the descriptors,
lists, applies, is refused. (The generator of stubs that Debian 12 has, grpc_tools, is too old for `optional`.)"""

import glob
import subprocess
import sys

import grpc

protos, generated, socket = sys.argv[1:]
files = sorted(glob.glob(protos + "/octoplane/v1/*.proto"))
assert len(files) >= 8, files
subprocess.run(["protoc", "-I", protos, "--python_out", generated, *files], check=True)
sys.path.insert(0, generated)

from octoplane.v1 import (config_pb2, node_pb2, objects_pb2, policy_pb2, remote_pb2, service_pb2,  # noqa: E402
                          stats_pb2)


class Service:
    """Calls the methods of a service by their names."""

    def __init__(self, channel, module, name):
        modules = (objects_pb2, node_pb2, policy_pb2, remote_pb2, service_pb2, config_pb2, stats_pb2)
        messages = {name: it for module in modules for name, it in vars(module).items()}
        service = module.DESCRIPTOR.services_by_name[name]
        streaming = {"ListEndpoints", "Watch"}
        for method in service.methods:
            call = channel.unary_stream if method.name in streaming else channel.unary_unary
            setattr(self, method.name, call(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=messages[method.output_type.name].FromString))


with grpc.insecure_channel("unix:" + socket) as channel:
    config = Service(channel, config_pb2, "Config")
    listed = [it for chunk in config.ListEndpoints(config_pb2.ListRequest(), timeout=20) for it in chunk.endpoints]
    assert [it.id for it in listed] == list(range(1, 5001))
    assert listed[0].name == "default/web-1" and listed[0].port == "pod1"

    endpoint = objects_pb2.Endpoint(id=9001, name="python/one", port="pod2", mac="02:00:00:00:00:51", identity=1234,
                                    addresses=["10.200.0.1", "fd00:200::1"])
    put = config_pb2.Change(put_endpoint=endpoint)
    answer = config.Apply(config_pb2.ApplyRequest(changes=[put]), timeout=20)
    assert answer.created == 1 and answer.events[0].endpoint == endpoint, answer
    assert config.GetEndpoint(config_pb2.GetEndpointRequest(id=9001), timeout=20) == endpoint

    endpoint.mac = "zz"
    try:
        config.Apply(config_pb2.ApplyRequest(changes=[put, config_pb2.Change(put_endpoint=endpoint)]), timeout=20)
        raise AssertionError("not refused")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith('changes[1]: endpoint 9001 (python/one): mac: "zz"'), error.details()
        assert any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata())

    events = config.Watch(config_pb2.WatchRequest(from_revision=answer.revision - 1), timeout=20)
    assert next(events).endpoint.id == 9001
    events.cancel()

    status = Service(channel, stats_pb2, "Stats").GetStatus(stats_pb2.GetStatusRequest(), timeout=20)
    assert status.revision == answer.revision
