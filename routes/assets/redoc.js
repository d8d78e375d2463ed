// ReDoc over the document that the page names.
const place = document.getElementById('docs')
window.Redoc.init(place.dataset.document, { hideDownloadButtons: false }, place)
