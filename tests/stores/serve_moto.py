"""moto, in this process: S3 in memory, one request after the other. It takes conditions on PUT as S3 does."""
import logging
import threading

from keep import *
from moto.moto_server import threaded_moto_server
from moto.server import ThreadedMotoServer


class OneAtATime(threaded_moto_server.DomainDispatcherApplication):
    """It has a thread for each connection, and looks whether an object is there before it creates it."""

    turn = threading.Lock()

    def __call__(self, environ, start_response):
        with self.turn:
            return super().__call__(environ, start_response)


threaded_moto_server.DomainDispatcherApplication = OneAtATime

# It would print a line for each request.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address=HERE, port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
create_bucket(port)
ready("moto", f"http://{HERE}:{port}")
