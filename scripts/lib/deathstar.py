"""The death star: an HTTP server on port 80, IPv4 and IPv6, that lets ships land.

Usage: deathstar.py NAME. A POST to /v1/request-landing is answered with "Ship landed on NAME", all else with 404.
"""

import http.server
import socket
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/request-landing":
            self.send_error(404)
            return
        body = f"Ship landed on {sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


Server(("::", 80), Handler).serve_forever()
