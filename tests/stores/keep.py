"""What the object stores that tests talk to have in common: `from keep import *`.

A script `serve_*.py` starts a store with a bucket, prints one line of JSON with the environment of whoever uses it, and
lives until its standard input is closed. So nobody has to take it down: the system closes that pipe also for a process
that was killed.
"""
import base64
import ctypes
import email.utils
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

BUCKET = "tideline"
KEY = "tideline"
SECRET = "tideline-secret"
REGION = "us-east-1"
HERE = "127.0.0.1"
PATIENCE = 60.0

PR_SET_PDEATHSIG = 1


def ready(store, *endpoints):
    """Tells the environment, and waits until nobody wants the store any more."""
    environment = {
        "TIDELINE_S3_STORE": store,
        "TIDELINE_S3_ENDPOINT": endpoints[0],
        "TIDELINE_S3_BUCKET": BUCKET,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
    }
    for number, endpoint in enumerate(endpoints[1:], 2):
        environment[f"TIDELINE_S3_ENDPOINT_{number}"] = endpoint
    print(json.dumps(environment), flush=True)
    sys.stdin.read()


def place():
    """A folder for all that a store writes, removed at the end."""
    # SystemExit unwinds, which removes the folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return tempfile.TemporaryDirectory(prefix="tideline-store-", ignore_cleanup_errors=True)


class Daemons:
    """Servers of a store. They go at the end of a `with`, without ceremony, and with this process if that is killed."""

    def __init__(self, folder):
        self.folder, self.children = folder, []

    def __enter__(self):
        return self

    def start(self, name, *command, **environment):
        """Starts one; gives the path of what it prints."""
        path = os.path.join(self.folder, f"{name}.out")
        libc = ctypes.CDLL(None)
        with open(path, "wb") as printed:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self.children.append((name, child, path))
        return path

    def wait(self, until, what):
        """Asks `until` again and again for something that is true, and gives it."""
        deadline = time.monotonic() + PATIENCE
        while not (answer := until()):
            for name, child, path in self.children:
                if child.poll() is not None:
                    sys.exit(f"{name} ended ({child.returncode}): {tail(path)}")
            if time.monotonic() > deadline:
                said = "\n".join(f"{name}: {tail(path)}" for name, _, path in self.children)
                sys.exit(f"{what}: not within {PATIENCE:.0f} s\n{said}")
            time.sleep(0.02)
        return answer

    def __exit__(self, *_):
        for _, child, _ in self.children:
            child.kill()
        for _, child, _ in self.children:
            child.wait()


def tail(path):
    """The end of what a server printed."""
    with open(path, errors="replace") as printed:
        return printed.read()[-2000:]


def output(*command):
    """Runs a program that must do well, and gives what it printed."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def free_ports(count):
    """Ports that nobody has now. Another program may take one before it is used; that is rare, and seen at once."""
    sockets = [socket.create_server((HERE, 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def answers(port):
    """Does anybody listen?"""
    try:
        socket.create_connection((HERE, port), timeout=1).close()
        return True
    except OSError:
        return False


def create_bucket(port):
    """Creates the bucket. The request is signed as S3's second version does it, which is short."""
    path = f"/{BUCKET}"
    date = email.utils.formatdate(usegmt=True)
    text = f"PUT\n\n\n{date}\n{path}"
    signature = base64.b64encode(hmac.new(SECRET.encode(), text.encode(), hashlib.sha1).digest()).decode()
    connection = http.client.HTTPConnection(HERE, port, timeout=PATIENCE)
    connection.request("PUT", path, headers={"Date": date, "Authorization": f"AWS {KEY}:{signature}"})
    response = connection.getresponse()
    said = response.read().decode(errors="replace")
    connection.close()
    if response.status != 200:
        sys.exit(f"no bucket: {response.status} {said}")
