"""moto, in this process: S3 in memory, one request after the other. It takes conditions on PUT as S3 does."""
import logging

from keep import *
from moto.server import ThreadedMotoServer

# It would print a line for each request.
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address=HERE, port=0, verbose=False)
server.start()
_, port = server.get_host_and_port()
create_bucket(port)
ready(f"http://{HERE}:{port}")
