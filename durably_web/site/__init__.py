"""Static sites: what turns a folder with job files and a page into files for any host.

Only the command line and the build use it; the browser's wheel is without it.
"""
