"""A server of the GDB remote protocol over a timeline: stock gdb and lldb, both ways.

A front end: it translates packets into what `timeline` offers and answers back. What it
adds is what only a debugger's protocol needs: gdb's conditions, where each ISA's gdb
expects a watchpoint to stop, and answers to questions about things we do not have.
"""
