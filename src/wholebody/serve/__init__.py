"""A web page on which people drop a photo or a film and get figures in 3D and files.

Starlette and uvicorn rather than Gradio: Gradio's addresses of results are paths of the server, which none of ours may
show, and it brings some forty packages and an older Pillow with it.
"""
