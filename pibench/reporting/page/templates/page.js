document.querySelectorAll("table").forEach(function (table) {
  var body = table.tBodies[0];
  if (body.rows.length < 2) return;
  table.querySelectorAll("thead th").forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("thead th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      var numeric = head.classList.contains("num");
      var value = function (row) {
        var text = row.cells[column].dataset.v;
        if (text === undefined || text === "") return null;
        return numeric ? parseFloat(text) : text;
      };
      Array.from(body.rows).sort(function (a, b) {
        var x = value(a), y = value(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});

function unfold() {
  var there = location.hash && document.getElementById(location.hash.slice(1));
  for (var part = there; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (there) there.querySelectorAll("details.fold").forEach(function (fold) { fold.open = true; });
}
addEventListener("hashchange", unfold);
unfold();
