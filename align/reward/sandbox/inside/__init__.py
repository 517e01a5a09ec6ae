"""What runs inside the sandbox: started as a script of its own, standard library only.

Nothing here may import ``align``: the interpreter that runs it has no site-packages on its path.
"""
