"""The engine for chat servers with audio input.

Whatever a server may send is bounded and checked here.
"""
