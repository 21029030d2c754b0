"""An MCP server over stdio for tests. ERA is `modern` or `legacy`; BEHAVIOUR says what its tool does.

The folder that it runs in holds `tools.json`, the list it shows (read anew each time), and gets `log.jsonl`, every
message that arrived, and `ended` when standard input closed.
"""

import json, os, signal, subprocess, sys, threading

ERA, BEHAVIOUR = sys.argv[1], sys.argv[2]
lock = threading.Lock()


def send(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def answer(request, result):
    if ERA == "modern":
        result.setdefault("resultType", "complete")
    send({"jsonrpc": "2.0", "id": request["id"], "result": result})


def error(request, code, message, data=None):
    send({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": message, "data": data}})


def tools():
    with open("tools.json") as file:
        return json.load(file)


def call(request):
    params = request["params"]
    key = params.get("_meta", {}).get("io.windlass/idempotency-key")
    if BEHAVIOUR == "answers":
        answer(request, {"content": [], "structuredContent": {"key": key, "arguments": params.get("arguments")}})
    elif BEHAVIOUR == "floods":
        sys.stdout.write('{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"' % request["id"])
        try:
            while True:
                sys.stdout.write("x" * 65536)
        except BrokenPipeError:
            os._exit(1)
    elif BEHAVIOUR == "large":
        answer(request, {"content": [{"type": "text", "text": "x" * 5000}]})
    elif BEHAVIOUR == "fails":
        answer(request, {"content": [{"type": "text", "text": "out of stock"}], "isError": True})
    elif BEHAVIOUR == "twice":
        answer(request, {"content": [{"type": "text", "text": "first"}]})
        answer(request, {"content": [{"type": "text", "text": "second"}]})
        send({"jsonrpc": "2.0", "id": 424242, "result": {}})
    elif BEHAVIOUR == "changes":
        if os.path.exists("changed"):
            send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        answer(request, {"content": [{"type": "text", "text": "done"}]})
    elif BEHAVIOUR == "dies":
        os._exit(3)
    elif BEHAVIOUR == "late":
        pending.append(request)
    elif BEHAVIOUR == "asks":
        pending.append(request)
        send({"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}})
    elif BEHAVIOUR == "env":
        files = len(os.listdir("/proc/self/fd"))
        opened = []
        try:
            while len(opened) < 100000:
                opened.append(open("/dev/null"))
        except OSError:
            pass
        answer(request, {"structuredContent": {"env": sorted(os.environ), "opened": len(opened), "argv": sys.argv[3:]}})
    elif BEHAVIOUR == "spawns":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        code += "os.fork(); os.fork()\nos.open('alive', os.O_WRONLY)\ntime.sleep(600)"
        subprocess.Popen([sys.executable, "-c", code])
    # `hangs` does nothing.


pending = []
for text in sys.stdin:
    request = json.loads(text)
    with open("log.jsonl", "a") as log:
        log.write(text)
    method = request.get("method")
    if method == "notifications/cancelled" and BEHAVIOUR == "late":
        for waiting in pending:
            answer(waiting, {"content": [{"type": "text", "text": "too late"}]})
    elif method is None and BEHAVIOUR == "asks":
        answer(pending.pop(), {"structuredContent": request})
    elif "id" not in request:
        pass
    elif method == "server/discover" and ERA == "modern":
        answer(request, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                         "serverInfo": {"name": "stub", "version": "1"}})
    elif method == "initialize" and ERA == "legacy":
        answer(request, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {"listChanged": True}},
                         "serverInfo": {"name": "stub", "version": "1"}})
    elif method == "tools/list":
        sys.stderr.write("a line for the log\n")
        print("not a message", flush=True)
        answer(request, tools())
    elif method == "tools/call":
        threading.Thread(target=call, args=(request,), daemon=True).start()
    else:
        error(request, -32601, "no such method")
open("ended", "w").close()
