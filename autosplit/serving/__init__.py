"""Edge and cloud as two processes: protocol, codec, cloud server, edge client, shaped link.

Import the modules by name. This file imports nothing, so that gRPC is loaded only by a
process that sends or serves.
"""
