"""The API in Python, generated from the protos: for tests that need more than octoctl."""

import importlib
import subprocess
import sys
import tempfile

import grpc

from conftest import ROOT


def _messages():
    protos = ROOT / "control" / "api" / "proto"
    files = sorted(protos.glob("octoplane/v1/*.proto"))
    generated = tempfile.mkdtemp(prefix="octoplane-api-")
    subprocess.run(["protoc", f"-I{protos}", f"--python_out={generated}",
                    *map(str, files)], check=True)
    sys.path.insert(0, generated)
    modules = [importlib.import_module(f"octoplane.v1.{file.stem}_pb2") for file in files]
    sys.path.remove(generated)
    subprocess.run(["rm", "-r", generated], check=True)
    return {name: it for module in modules for name, it in vars(module).items()}, modules


class Api:
    """One client. `api.Message(...)` makes a message, `api.call_Method(request)` calls."""

    _known = None

    def __init__(self, socket):
        if Api._known is None:
            Api._known = _messages()
        names, modules = Api._known
        self.channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1)])
        for module in modules:
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    kind = {(False, False): self.channel.unary_unary, (False, True): self.channel.unary_stream,
                            (True, False): self.channel.stream_unary}[self._streams(method)]
                    setattr(self, f"call_{method.name}", kind(
                        f"/{service.full_name}/{method.name}", request_serializer=lambda it: it.SerializeToString(),
                        response_deserializer=names[method.output_type.name].FromString))

    @staticmethod
    def _streams(method):
        # Debian's protobuf does not tell; the names do.
        return (method.name in ("ApplyStream", "Replace", "Resync"),
                method.name == "Watch" or method.name.startswith(("List", "Stream")))

    def __getattr__(self, name):
        try:
            return Api._known[0][name]
        except KeyError:
            raise AttributeError(name) from None

    def apply(self, *changes, **kwargs):
        request = self.ApplyRequest(changes=[self.Change(**change) for change in changes], omit_events=True)
        return self.call_Apply(request, timeout=60, **kwargs)

    def state(self):
        """Revision and everything programmed, by kind and key."""
        events = self.call_Watch(self.WatchRequest(initial_state=True), timeout=60)
        found = {}
        for event in events:
            if event.initial_state_end:
                events.cancel()
                return event.revision, found
            kind = event.WhichOneof("object")
            found.setdefault(kind, []).append(getattr(event, kind))

    def close(self):
        self.channel.close()
