"""The web page `hybridvq app`, on what the command line uses too.

    models.py        the models of a page, loaded once and only read afterwards
    picture.py       a photograph that somebody chose or uploaded, at a size that answers at once
    reconstruct.py   ┐
    compress.py      │
    generate.py      ├── what each tab computes: pictures and numbers in, pictures, numbers and markup out
    codebook.py      │
    compare.py       ┘
    markup.py        pictures, tables and sentences as HTML
    values.py        numbers and choices that a browser sends, checked
    uploads.py       files from their arrival until they are read
    door.py          which requests are let in
    chooser.py       the picture of all tabs, and what handlers share
    tabs.py          the tabs' controls, wired to those; with chooser.py and page.py the only files that know Gradio
    page.py          the page and its server

Pictures are held by their visitor's session alone and travel within the page, so that none is ever written to disk
here; what an upload leaves there is deleted once it has been read.
"""
