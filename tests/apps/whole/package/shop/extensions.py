from flask_hotreload import HotRPC

rpc = HotRPC()
