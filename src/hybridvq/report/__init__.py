"""A comparison's result as something a person reads.

    result.json + *.npy ──► result.py ──► summary.py   the paragraph on top
                                     ├──► table.py     the table, as cells, as markdown, in the terminal
                                     ├──► figures.py   loss curves and codebook usage, as SVG
                                     ├──► pictures.py  reconstructions and error maps, as PNG; montage.py, all in one
                                     ├──► photographs.py  whole photographs through trained models
                                     └──► page.py      report.html, all of it in one file

Nothing here computes a metric of a model: the numbers are those of result.json, averaged over seeds.
"""

from hybridvq.report.page import write_figures, write_report
from hybridvq.report.table import markdown_table, print_table

__all__ = ["markdown_table", "print_table", "write_figures", "write_report"]
