"""The webcam: count fingers live. All of the page is one component, which runs in the visitor's browser."""

from web import browser_camera

browser_camera.live("live")
