"""Ceph: a monitor, an object daemon in memory, and two gateways to the same objects. All that it writes is below one
folder, nothing of it is this system's, and it needs no rights."""
import uuid

from keep import *

CONF = """
[global]
fsid = {fsid}
mon host = v2:{here}:{port}
ms bind ipv4 = true
ms bind ipv6 = false
public network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {folder}/keyring
run dir = {folder}
crash dir = {folder}/crash
admin socket = {folder}/$name.$pid.asok
pid file = {folder}/$name.pid
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
# Changes of the map are gathered for a second otherwise, and coming up takes many.
paxos propose interval = 0.02
paxos min wait = 0.01
# One daemon holds all there is, and once.
osd objectstore = memstore
memstore device bytes = 8589934592
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
"""


def keyring(folder):
    """The keys of everybody who takes part."""
    path = f"{folder}/keyring"
    everything = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"]
    gateway = ["--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"]
    output("ceph-authtool", "--create-keyring", path, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    for name, rights in [
        ("client.admin", everything),
        ("osd.0", ["--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"]),
        ("client.rgw.1", gateway),
        ("client.rgw.2", gateway),
    ]:
        output("ceph-authtool", path, "--gen-key", "-n", name, *rights)
    return path


def serve(folder, daemons):
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    port, *gateways = free_ports(3)
    for name in ["mon", "osd", "rgw", "crash"]:
        os.mkdir(f"{folder}/{name}")
    with open(f"{folder}/ceph.conf", "w") as conf:
        conf.write(CONF.format(fsid=fsid, here=HERE, port=port, folder=folder))
    keys = keyring(folder)
    c = ["-c", f"{folder}/ceph.conf"]

    output("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:{HERE}:{port}]", f"{folder}/monmap")
    output("ceph-mon", *c, "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap", "--keyring", keys)
    daemons.start("mon", "ceph-mon", *c, "-i", "a", "-f")
    daemons.wait(lambda: answers(port), "the monitor listens")
    output("ceph", *c, "osd", "new", osd, "0")
    output("ceph", *c, "auth", "import", "-i", keys)

    output("ceph-osd", *c, "-i", "0", "--mkfs", "--osd-uuid", osd)
    daemons.start("osd", "ceph-osd", *c, "-i", "0", "-f")
    up = lambda: json.loads(output("ceph", *c, "osd", "stat", "-f", "json"))["num_up_osds"] == 1
    daemons.wait(up, "the object daemon is up")

    who = ["--uid", KEY, "--display-name", KEY, "--access-key", KEY, "--secret", SECRET]
    output("radosgw-admin", *c, "-n", "client.admin", "user", "create", *who)
    for number, gateway in enumerate(gateways, 1):
        listen = ["--rgw-frontends", f"beast endpoint={HERE}:{gateway}"]
        daemons.start(f"rgw{number}", "radosgw", *c, "-n", f"client.rgw.{number}", "-f", *listen)
    daemons.wait(lambda: all(answers(gateway) for gateway in gateways), "the gateways listen")
    create_bucket(gateways[0])
    ready("ceph", *(f"http://{HERE}:{gateway}" for gateway in gateways))


# Options that somebody has for a cluster of his own.
os.environ.pop("CEPH_ARGS", None)
with place() as folder, Daemons(folder) as daemons:
    serve(folder, daemons)
