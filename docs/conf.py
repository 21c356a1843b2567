"""How Sphinx makes the book. `lecture book` lays the sources out first: see lecture_lib/course/book/."""

from lecture_lib.course.repository import BRANCH, repository

project = "Let's build GPT, executable"
author = "the course's authors"
copyright = "MIT licence; the lecture is Andrej Karpathy's"
language = "en"

extensions = ["myst_nb", "lecture_lib.course.book.mathml"]
nb_execution_mode = "off"  # pages show the stored outputs, which the tests keep true
nb_render_image_options = {"alt": "the picture that the code above draws"}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # a heading that skips a level is a matter for the notebook
    "ref.python",  # a type in a signature may have the name of another module's class
]
html_math_renderer = "mathml"

python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = False
html_show_sphinx = False
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_theme_options = {
    "navbar_persistent": [],  # search stands in the sidebar already
    "footer_content_items": ["copyright.html"],
    "use_download_button": False,
    "show_navbar_depth": 1,
    "collapse_navbar": True,
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "back_to_top_button": True,
}
if repository():
    html_theme_options |= {
        "repository_url": repository(),
        "repository_branch": BRANCH,
        "use_repository_button": True,
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }
