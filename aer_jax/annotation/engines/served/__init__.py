"""The engine that asks a chat server with audio input.

Whatever a server may send is bounded and checked here.
"""
