"""A whole party in the standard library, outside of pibench: the client sends its image, the server the logits."""

import json
import operator
import os
import socket
import struct
import sys
import time

job = json.loads(sys.stdin.readline())
results, serves, started = os.fdopen(job["result_fd"], "w"), job["role"] == "server", time.perf_counter()


def say(event, **values):
    print(json.dumps({"event": event, **values}), file=results, flush=True)


def tally(since, sent=0, received=0, rounds=0):
    counts = {"time_s": time.perf_counter() - since, "wait_s": 0.0, "sent_bytes": sent, "received_bytes": received}
    return {
        **counts,
        "rounds": rounds,
        "parts": [{"kind": "linear", "stage": "", "site": "all", **counts, "rounds": rounds}],
    }


def tensors(path):
    with open(path, "rb") as file:
        data = file.read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    spans = {name: told["data_offsets"] for name, told in json.loads(data[8:start]).items() if name != "__metadata__"}
    return {name: struct.unpack(f"<{(b - a) // 4}f", data[start + a : start + b]) for name, (a, b) in spans.items()}


def packed(values):
    return struct.pack(f"<{len(values)}f", *values)


def received(sock, count):
    return struct.unpack(f"<{count}f", sock.recv(4 * count, socket.MSG_WAITALL))


if serves:
    listener = socket.create_server((job["connection"]["host"], 0))
    say("listening", address=list(listener.getsockname()))
    weights, peer = tensors(job["weights"]), listener.accept()[0]
else:
    images, peer = (
        tensors(job["images"])["images"],
        socket.create_connection(json.loads(sys.stdin.readline())["server"]),
    )
say("setup", tally=tally(started))
for index in range(job["warmups"] + job["inferences"]):
    start = time.perf_counter()
    if serves:
        image = received(peer, 64)
        rows = [(weights["fw"][64 * row : 64 * row + 64], weights["fb"][row]) for row in range(10)]
        peer.sendall(packed([sum(map(operator.mul, row, image)) + bias for row, bias in rows]))
        say("inference", index=index, tally=tally(start, 40, 256, 2))
    else:
        peer.sendall(packed(images[64 * index : 64 * index + 64]))
        say("inference", index=index, logits=[list(received(peer, 10))], tally=tally(start, 256, 40, 2))
say("done", peak_rss_bytes=0, device="cpu", **job["options"])
