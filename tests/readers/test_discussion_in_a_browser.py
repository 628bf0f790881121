"""Readers in a real browser, on a desktop and on a phone: vote, comment, report, moderate; axe looks at each page."""

import re

from windows import look

from waiting import follow

PAPER = "elm-neuron"


def test_vote_comment_report_and_moderate(windows):
    ada, ben, mo = windows["ada"], windows["ben"], windows["mo"]
    ada.goto(f"/search?q={PAPER}")
    button = ada.locator(f"#v-{PAPER} button")
    assert button.get_attribute("aria-pressed") == "false"
    button.focus()
    ada.keyboard.press("Enter")
    ada.wait_for_url(f"**/search?q={PAPER}#v-{PAPER}")
    assert button.get_attribute("aria-pressed") == "true"
    look(ada)

    ada.goto(f"/papers/{PAPER}")
    claim = ada.locator("article.claim").first.get_attribute("id")
    follow(ada.locator(".beneath").first.get_by_role("link", name=re.compile("Discuss")))
    ada.get_by_label("I could not reproduce this").check()
    ada.get_by_label("Your comment").fill("With **three** seeds $\\tau_m = 5$ it does not. <script>alert(1)</script>")
    follow(ada.get_by_role("button", name="Comment"))
    assert ada.url.endswith(f"/papers/{PAPER}/claims/{claim}/discussion#comment-1")
    comment = ada.locator("#comment-1")
    assert "could not reproduce this" in comment.inner_text()
    assert comment.locator("math").is_visible()
    look(ada)

    ben.goto(f"/papers/{PAPER}")
    assert "1 could not reproduce this" in ben.locator(".beneath").first.inner_text()
    follow(ben.locator(".beneath").first.get_by_role("link", name="Quote"))
    assert ben.get_by_label("Your comment").input_value().startswith(f"[[{claim}]]")
    ben.get_by_label("Your comment").fill(f"[[{claim}]] surprises me")
    follow(ben.get_by_role("button", name="Comment"))
    assert ben.locator("#comment-2 q").is_visible()
    ben.goto(f"/papers/{PAPER}/claims/{claim}/discussion")
    ben.get_by_text("Report").click()
    ben.get_by_label("What is wrong with it").fill("It says nothing of the data")
    follow(ben.get_by_role("button", name="Tell a moderator"))
    assert "A moderator will look" in ben.get_by_role("status").inner_text()
    follow(ben.get_by_role("link", name="Back to the comment"))
    ben.get_by_text("Answer", exact=False).first.click()
    ben.locator("#comment-1").get_by_label("Your answer").fill("Which data?")
    follow(ben.locator("#comment-1").get_by_role("button", name="Answer"))
    assert "Which data?" in ben.locator("#comment-1 .answers").inner_text()
    ben.goto(f"/papers/{PAPER}")
    look(ben)

    mo.goto("/")
    follow(mo.get_by_role("link", name="Moderation"))
    assert "It says nothing of the data" in mo.locator("#case-1").inner_text()
    look(mo)
    follow(mo.locator("#case-1").get_by_role("button", name=re.compile("^Hide comment")))
    mo.locator("#hidden ~ details summary").click()
    assert mo.locator("#case-1").get_by_role("button", name=re.compile("Show again")).is_visible()
    ada.goto(f"/papers/{PAPER}/claims/{claim}/discussion")
    assert "Hidden by a moderator" in ada.locator("#comment-1").inner_text()
    assert "three" not in ada.locator("#discussion").inner_text()
    for page, path in ((ada, "/about/trending"), (ada, "/account/comments"), (ben, f"/papers/{PAPER}/discussion")):
        page.goto(path)
        look(page)
