"use strict";
(function () {
  var root = document.documentElement;

  function setLanguage(language) {
    root.dataset.lang = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
  }
  var wanted = /[?&#]lang=(en|zh)/.exec(location.href);
  setLanguage(wanted ? wanted[1] : (navigator.language || "").indexOf("zh") === 0 ? "zh" : "en");
  document.getElementById("language").addEventListener("click", function () {
    setLanguage(root.dataset.lang === "zh" ? "en" : "zh");
  });

  function sortBy(head) {
    var table = head.closest("table");
    var body = table.tBodies[0];
    var column = head.cellIndex;
    var numbers = head.classList.contains("n");
    var before = head.getAttribute("aria-sort");
    // The first click shows large numbers, and the beginning of the alphabet, first.
    var down = before === "none" ? numbers : before === "ascending";
    table.querySelectorAll("th[aria-sort]").forEach(function (other) { other.setAttribute("aria-sort", "none"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    var rows = Array.prototype.map.call(body.rows, function (row, place) {
      var text = row.cells[column].dataset.key;
      return { row: row, place: place, key: numbers ? parseFloat(text) : text };
    });
    rows.sort(function (a, b) {
      var emptyA = numbers ? isNaN(a.key) : !a.key, emptyB = numbers ? isNaN(b.key) : !b.key;
      if (emptyA || emptyB) { return emptyA - emptyB || a.place - b.place; }
      var order = numbers ? a.key - b.key : a.key.localeCompare(b.key);
      return (down ? -order : order) || a.place - b.place;
    });
    rows.forEach(function (entry) { body.appendChild(entry.row); });
  }
  document.querySelectorAll("th[aria-sort]").forEach(function (head) {
    head.tabIndex = 0;
    head.addEventListener("click", function () { sortBy(head); });
    head.addEventListener("keydown", function (event) {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(head); }
    });
  });

  function follow(chart) {
    var svg = chart.querySelector("svg");
    var data = JSON.parse(chart.querySelector("script").textContent);
    var mark = svg.querySelector(".mark");
    var where = chart.querySelector(".where");
    var values = chart.querySelectorAll(".legend b");
    function show(event) {
      var box = svg.getBoundingClientRect();
      var x = (event.clientX - box.left) / box.width * data.size[0];
      var at = data.x[0] + (x - data.left) / data.width * (data.x[1] - data.x[0]);
      at = Math.min(Math.max(at, data.x[0]), data.x[1]);
      data.lines.forEach(function (line, number) {
        var best = -1;
        for (var i = 0; i < line.x.length; i++) {
          if (best < 0 || Math.abs(line.x[i] - at) < Math.abs(line.x[best] - at)) { best = i; }
        }
        values[number].textContent = best < 0 ? "" : line.t[best];
      });
      var place = data.left + (at - data.x[0]) / (data.x[1] - data.x[0]) * data.width;
      mark.setAttribute("x1", place);
      mark.setAttribute("x2", place);
      mark.style.display = "";
      where.textContent = " " + (Math.round(at * 100) / 100);
    }
    function hide() {
      mark.style.display = "none";
      where.textContent = "";
      data.lines.forEach(function (line, number) { values[number].textContent = line.last; });
    }
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", hide);
  }
  document.querySelectorAll(".chart").forEach(follow);

  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    button.addEventListener("click", function () {
      var text = document.getElementById(button.dataset.copy).textContent;
      if (navigator.clipboard) { navigator.clipboard.writeText(text); }
    });
  });

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (part) { part.open = true; });
  });
})();
