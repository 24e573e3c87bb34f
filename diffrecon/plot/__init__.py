"""Pictures: every image with a scale bar and a colour bar, in sizes and fonts that can go into a paper.

Needs matplotlib (`pip install "diffrecon[plot]"`). Every function returns a matplotlib `Figure` that belongs to no
window and no global state; `figure.savefig("name.png")` writes it at 200 dpi, `figure.axes` are there to go on from.
Functions of one panel take `ax=` to draw into axes that you made yourself.

Arrays are shown as they are indexed: row 0 at the top, column 0 at the left, pixels square. Colours run between robust
percentiles. Grey maps show phase and absorption, cividis magnitudes, a cyclic map phases that go round. Pixels without
a value (NaN) are grey and hatched.

```python
import numpy as np
import diffrecon as dr

figure = dr.plot.image(np.random.rand(64, 64), pixel_size=50e-9, units="rad", title="phase")
```
"""

from .curves import convergence as convergence
from .curves import l_curve as l_curve
from .curves import plan_curve as plan_curve
from .curves import ring_correlation as ring_correlation
from .curves import transfer_functions as transfer_functions
from .images import complex_image as complex_image
from .images import image as image
from .images import image_panel as image_panel
from .images import probe_modes as probe_modes
from .images import sinogram as sinogram
from .images import slices as slices
from .orientation import orientation as orientation
from .page import Panel as Panel
from .page import in_rows as in_rows
from .page import page_of as page_of
from .result import Picture as Picture
from .result import figure as figure
from .result import pictures as pictures
from .result import register_picture as register_picture
