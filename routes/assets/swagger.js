// Swagger UI over the document that the page names; the page's policy keeps scripts in files of their own.
const place = document.getElementById('docs')
window.ui = window.SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [window.SwaggerUIBundle.presets.apis]
})
