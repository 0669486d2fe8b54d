"""s3s-fs, a server that lies: it looks whether an object is there, and then creates it, so that several who create the
same at once are all told that they did. `serve_s3s.py PROGRAM`."""
import re

from keep import *

with place() as folder, Daemons(folder) as daemons:
    os.makedirs(f"{folder}/root/{BUCKET}")
    keys = ["--access-key", KEY, "--secret-key", SECRET]
    printed = daemons.start(
        "s3s-fs", sys.argv[1], "--host", HERE, "--port", "0", *keys, f"{folder}/root", RUST_LOG="info"
    )
    running = re.compile(r"server is running at (http://[0-9.]+:[0-9]+)")
    ready("s3s", daemons.wait(lambda: running.search(tail(printed)), "s3s-fs runs").group(1))
