"""The documentation's site: `sphinx-build -W -c docs . site` builds it, without a network.

The sources are the Markdown files and notebooks where they lie in the repository.
"""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = html_title = "layca_optax"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
include_patterns = ["*.md", "docs/*.md", "experiments/README.md", "benchmarks/README.md", "notebooks/*.ipynb"]
exclude_patterns = [".*"]
root_doc = "docs/index"
highlight_language = "text"
default_role = "py:obj"  # `name` in a docstring is a link where there is one

nb_execution_mode = "off"  # as committed
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings say more
maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_attr_annotations = False

html_theme = "sphinx_book_theme"
html_math_renderer = "mathml"
html_static_path = ["theme/style.css"]
html_css_files = ["style.css"]
html_extra_path = ["theme/index.html"]
html_show_copyright = False
html_domain_indices = False
html_theme_options = {"article_footer_items": [], "footer_content_items": [], "home_page_in_toc": True}

# Programs and commands have a button that copies them, without prompts; diffs and outputs have none.
copybutton_selector = ", ".join(
    f"div.highlight-{language} pre" for language in ("python", "ipython3", "default", "none", "sh")
)
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Typesets formulas as MathML, which needs neither a script nor a font from elsewhere."""
    app.add_html_math_renderer("mathml", (_typeset, None), (_typeset, None))
    # The docstring of a class is enough: it lists the fields.
    app.connect("autodoc-skip-member", lambda app, what, *rest: what == "class" or None)


def _typeset(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    block = isinstance(node, nodes.math_block)
    # Browsers leave no room behind a function's name.
    mathml = tex2mathml(node.astext(), as_block=block).replace("<mo>&Apply", '<mo rspace="0.17em">&Apply')
    translator.body.append(f'<div class="formula">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode
